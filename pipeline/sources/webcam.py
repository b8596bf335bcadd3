"""A camera at this computer, through OpenCV."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, UserError
from pipeline.sources.capture import Capture, LostError
from pipeline.sources.grabbers import grab_camera
from pipeline.sources.live_video import LiveVideo

MAX_LISTED_INDEXES = 10


@dataclass(eq=False)
class Webcam(LiveVideo):
    """Pictures of a camera, captured in a process of its own. What happens while it is away becomes a gap.

    ``device``: an index, or a path such as /dev/video0. ``list``: only list the cameras. ``width``, ``height``,
    ``rate``: asked of the camera (None: its choice).
    """

    device: int | str = 0
    list: bool = False
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    rate: PositiveFloat | None = None
    frozen: PositiveFloat | None = field(default=5.0, kw_only=True)

    def __post_init__(self) -> None:
        self.device = int(self.device) if str(self.device).isdecimal() else self.device
        self.reads = (Path(self.device),) if isinstance(self.device, str) else ()
        self.name = f"camera {self.device}"

    def open(self, again: bool) -> Capture:
        opening = self.timeout + 10  # a process has to start
        asked = (self.device, self.width, self.height, self.rate)
        return Capture(grab_camera, asked, self.keep, self.frozen, opening)

    def list_devices(self) -> str | None:
        """One camera a line: index, picture size and rate, and the name where it is known."""
        rows = []
        for index in range(MAX_LISTED_INDEXES if self.list else 0):
            if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
                continue  # to try takes a process
            try:
                capture = Capture(grab_camera, (index, None, None, None), "newest", None, 10.0)
            except LostError:
                continue
            capture.close()
            name = Path(f"/sys/class/video4linux/video{index}/name")
            rows.append(f"{index:3}  {capture.what}  {name.read_text().strip() if name.is_file() else ''}".rstrip())
        return "\n".join(rows) or "no camera found" if self.list else None

    def failure(self, error: LostError) -> UserError:
        if self.started:
            return super().failure(error)
        return ConfigError(
            f"source.device: {self.device}: {error}; expected an index or a path (source.list=true shows them)"
        )
