"""A window with what a camera or a file shows, and the model's answers beside it."""

from pydantic import PositiveInt

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.picture import Image
from pipeline.sinks.display import Display, NoDisplayError
from pipeline.sinks.items import Frame, StreamInfo, TimedGap
from pipeline.sinks.screen import Screen
from pipeline.sinks.sink import Closed


class Window(Screen):
    """Each picture beside the newest answer; events are printed, too. Closing the window, q or Esc ends the stream.

    A window that is slower than the stream leaves pictures out.
    """

    def __init__(self, height: PositiveInt = 720) -> None:
        """``height`` of the window in pixels, at first."""
        self.height = height
        self.display: Display | None = None

    def start(self, stream: StreamInfo) -> None:
        """Open the window. ConfigError if there is no display."""
        try:
            self.display = Display(f"Rivulet: {stream.name}", self.height)
        except NoDisplayError as error:
            raise ConfigError(f"sink=window: {error}; choose sink=video or sink=console") from None
        super().start(stream)

    def flush(self) -> None:
        """Raise Closed if the user has closed the window, MediaError if it broke down; also while no pictures come."""
        if self.display is None or not self.display.closed:
            return
        broken = self.display.broken
        self.end()
        if broken:
            raise MediaError("device_lost", "the window has broken down; is the display still there?")
        raise Closed

    def show(self, frame: Frame) -> None:
        """Show a picture; Closed or MediaError as ``flush``."""
        self.put(self.draw(frame.image, frame.seconds, self.age))

    def show_gap(self, gap: TimedGap) -> None:
        """The last picture, darkened, until the next one comes."""
        if self.last is not None:
            self.put(self.draw(self.last, gap.start, self.age, gap.why))

    def put(self, canvas: Image) -> None:
        """Show what was drawn."""
        if self.display is not None:
            self.display.show(canvas)
        self.flush()

    def end(self) -> None:
        """Close the window; what comes is not shown."""
        if self.display is not None:
            self.display.close()
            self.display = None

    def close(self) -> None:
        self.end()
        super().close()
