"""A label track for Audacity (File, Import, Labels): to see and hear the events beside the sound."""

from pipeline.core.text import clean
from pipeline.sinks.items import Item, TimedEvent
from pipeline.sinks.text import TextSink


class Labels(TextSink):
    """Start, end (seconds) and the label with its score, separated by tabs."""

    def write(self, item: Item) -> None:
        if isinstance(item, TimedEvent):
            self.journal.write(f"{item.start:.6f}\t{item.end:.6f}\t{clean(item.label)} {item.score:.2f}\n")
