"""A camera at this computer, through OpenCV."""

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, UserError
from pipeline.sources.capture import Capture, Keep, LostError
from pipeline.sources.grabbers import grab_camera
from pipeline.sources.live_video import LiveVideo
from pipeline.sources.source import Policy

MAX_LISTED_INDEXES = 10


class Webcam(LiveVideo):
    """Pictures of a camera, captured in a process of its own. What happens while it is away becomes a gap."""

    def __init__(
        self,
        device: int | str = 0,
        list: bool = False,
        width: PositiveInt | None = None,
        height: PositiveInt | None = None,
        rate: PositiveFloat | None = None,
        keep: Keep = "newest",
        seconds: PositiveFloat | None = None,
        timeout: PositiveFloat = 2.0,
        frozen: PositiveFloat | None = 5.0,
        patience: PositiveFloat | None = None,
        gap: Policy = "reset",
    ) -> None:
        """``device``: an index, or a path such as /dev/video0. ``list``: only list the cameras. ``width``, ``height``,
        ``rate``: asked of the camera (None: its choice). ``keep``: the ``newest`` picture, so that answers are never
        late, or ``every`` one. ``frozen``: seconds of equal pictures that count as a loss (None: never). The rest:
        see ``LiveSource``.
        """
        super().__init__(f"camera {device}", timeout, 10.0, patience, gap, seconds)
        self.device = int(device) if str(device).isdecimal() else device
        self.reads = (Path(self.device),) if isinstance(self.device, str) else ()
        self.list, self.asked, self.keep, self.frozen = list, (width, height, rate), keep, frozen

    def open(self, again: bool) -> Capture:
        opening = self.timeout + 10  # a process has to start
        return Capture(grab_camera, (self.device, *self.asked), self.keep, self.frozen, opening)

    def list_devices(self) -> str | None:
        """One camera a line: index, picture size and rate, and the name where it is known."""
        rows = []
        for index in range(MAX_LISTED_INDEXES if self.list else 0):
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
