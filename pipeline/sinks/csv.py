"""Tables for spreadsheets and pandas."""

from pathlib import Path

from pydantic import PositiveFloat

from pipeline.core.journal import Journal
from pipeline.sinks.items import EVENT_COLUMNS, FileResult, Item, Steps, StreamInfo, TimedEvent
from pipeline.sinks.text import Table, TextSink


class CSV(TextSink):
    """Events or files as rows; posteriors, if asked for, in a second table beside it. A class's column is ``p_`` and
    its label, so that no label can be taken for another column. Gaps have no rows: they are where times are missing
    among the posteriors.
    """

    files = True

    def __init__(self, path: str | None = None, posteriors: bool = False, sync: PositiveFloat | None = 1.0) -> None:
        """``path`` of the table (None: standard output, where posteriors stand instead of the events), forced to the
        disk every ``sync`` seconds.
        """
        super().__init__(path, sync)
        self.table = Table(self.journal)
        self.steps = self.table if posteriors else None
        if path and posteriors:
            place = Path(path).with_suffix(".posteriors.csv")
            self.steps = Table(Journal(str(place), sync))
            self.outputs = (*self.outputs, place.expanduser())

    def start(self, stream: StreamInfo) -> None:
        """Write the head of the table of events."""
        super().start(stream)
        if self.steps is not self.table:
            self.table.head(EVENT_COLUMNS)
        if self.steps:
            self.steps.journal.open()

    def write(self, item: Item) -> None:
        """A line for each row, written at once. A file's posteriors are in its row."""
        match item:
            case TimedEvent() if self.steps is not self.table:
                self.table.write({key: getattr(item, key) for key in EVENT_COLUMNS})
            case Steps() if self.steps and self.stream:
                for row in item.rows(self.stream):
                    scores = {f"p_{label}": value for label, value in row.pop("posteriors").items()}
                    self.steps.write({"time": row.pop("time")} | scores | row)  # an age comes last
            case FileResult():
                self.journal.whole = True
                for row in item.table_rows():
                    self.table.write(row)

    def flush(self) -> None:
        """To the disk, if it is time."""
        super().flush()
        if self.steps:
            self.steps.journal.flush()

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self.steps:
                self.steps.journal.close()
