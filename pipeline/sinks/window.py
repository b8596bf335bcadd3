"""A window with what a camera or a file shows, and the model's answers beside it."""

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.picture import Image
from pipeline.sinks.display import Display, NoDisplayError
from pipeline.sinks.overlay import Plan, draw, plan
from pipeline.sinks.screen import Screen
from pipeline.sinks.sink import Closed


class Window(Screen):
    """Each picture beside the newest answer; events are printed, too. Closing the window, q or Esc ends the stream.

    A window that is slower than the stream leaves pictures out.
    """

    def __init__(self, height: PositiveInt = 720) -> None:
        """``height`` of the window in pixels, at first."""
        super().__init__()
        self.height = height
        self.display: Display | None = None
        self.place: Plan | None = None
        self.last: Image | None = None

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Open the window. ConfigError if there is no display."""
        try:
            self.display = Display(f"Rivulet: {name}", self.height)
        except NoDisplayError as error:
            raise ConfigError(f"sink=window: {error}; choose sink=video or sink=console") from None
        super().start(name, labels, rate, hop)

    def steps(self, first: int, posteriors: NDArray[np.float32], age: float | None = None) -> None:
        """Remember the answers; and see whether the window is still open, as no picture may come."""
        super().steps(first, posteriors, age)
        self.show()

    def picture(self, seconds: float, image: Image) -> None:
        """Show a picture. Closed if somebody has closed the window; MediaError if it broke down."""
        self.last = image
        self.place = self.place or plan(*image.shape[:2])
        self.show(draw(image, self.scene(seconds, self.age), self.place))

    def missing(self, seconds: float, why: str) -> None:
        """The last picture, darkened, until the next one comes."""
        if self.last is not None and self.place is not None:
            self.show(draw(self.last, self.scene(seconds, self.age, why), self.place))

    def show(self, canvas: Image | None = None) -> None:
        """Show a canvas, if there is one, and see whether the window is still open."""
        if self.display is None:
            return
        if canvas is not None:
            self.display.show(canvas)
        if self.display.closed:
            broken = self.display.broken
            self.end()
            if broken:
                raise MediaError("device_lost", "the window has broken down; is the display still there?")
            raise Closed

    def end(self) -> None:
        """Close the window; what comes is not shown."""
        if self.display is not None:
            self.display.close()
            self.display = None

    def close(self) -> None:
        """Close the window and sum up."""
        self.end()
        super().close()
