"""Subtitles (WebVTT): the events while the recording is played, in browsers and video players."""

from pipeline.core.atomic import atomic_write
from pipeline.core.text import clean
from pipeline.sinks.items import Item, StreamInfo, TimedEvent
from pipeline.sinks.text import TextSink

HEAD = "WEBVTT\n\n"


class VTT(TextSink):
    """A cue for each event. They are written as the events end, and put in the order of their starts at the end (not on
    standard output).
    """

    def start(self, stream: StreamInfo) -> None:
        super().start(stream)
        self.events: list[TimedEvent] = []
        self.journal.write(HEAD)

    def write(self, item: Item) -> None:
        if isinstance(item, TimedEvent):
            self.journal.write(cue(item))
            if self.outputs:
                self.events.append(item)

    def close(self) -> None:
        """Close the file, its cues in order."""
        super().close()
        if self.stream is None:
            return
        ordered = sorted(self.events, key=lambda event: (event.start, event.end))
        if ordered != self.events and self.outputs[0].is_file():
            with atomic_write(self.outputs[0]) as file:
                file.writelines(text.encode("utf-8", "surrogateescape") for text in (HEAD, *map(cue, ordered)))


def cue(event: TimedEvent) -> str:
    """One subtitle. An arrow in a label would be a time, a < a tag."""
    label = clean(event.label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{clock(event.start)} --> {clock(event.end)}\n{label} {event.score:.2f}\n\n"


def clock(seconds: float) -> str:
    """Hours, minutes, seconds, milliseconds."""
    whole, part = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{part:03}"
