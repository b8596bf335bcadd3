"""A camera at this computer, through OpenCV."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.camera import Capture, Keep, LostError
from pipeline.sources.grabbers import device as grab
from pipeline.sources.live import Live
from pipeline.sources.source import Gap, Piece, Policy, Source

INDEXES = 10  # that are tried to list the cameras


class Webcam(Source):
    """Pictures of a camera, captured in a process of its own; what happens while it is away is told as gaps."""

    live = True

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
        """``device``: an index, or a path such as /dev/video0. ``list``: only show the cameras. ``width``, ``height``,
        ``rate`` are asked for (None: the camera's choice); what is got is printed. ``keep``: the ``newest`` picture, so
        that answers are never late, or ``every`` one. ``seconds`` in all (None: until interrupted). No picture for
        ``timeout`` seconds, or the same for ``frozen`` (None: never), is a loss; the camera is then tried again and
        again, for ``patience`` seconds (None: for ever). ``gap``: see ``Stream.gap``.
        """
        self.device = int(device) if str(device).isdecimal() else device
        self.reads = (Path(self.device),) if isinstance(self.device, str) else ()
        self.name, self.listing = f"camera {device}", list
        self.asked, self.keep, self.frozen, self.timeout = (width, height, rate), keep, frozen, timeout
        self.watched = Live(self.open, self.name, timeout, 10.0, patience, gap, seconds)

    def open(self) -> Capture:
        """The camera, capturing. LostError if it cannot be."""
        opening = self.timeout + 10  # a process has to start
        return Capture(grab, (self.device, *self.asked), self.keep, self.frozen, opening)

    def devices(self) -> str:
        """The cameras that can be opened, one a line: index, picture size and rate, and the name where it is known."""
        rows = []
        for index in range(INDEXES):
            try:
                capture = Capture(grab, (index, None, None, None), "newest", None, 10.0)
            except LostError:
                continue
            capture.close()
            name = Path(f"/sys/class/video4linux/video{index}/name")
            rows.append(f"{index:3}  {capture.what}  {name.read_text().strip() if name.is_file() else ''}".rstrip())
        return "\n".join(rows) or "no camera found"

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """ConfigError if there is no such camera; MediaError if it is lost for good."""
        picture = spec.only_pictures("source=webcam")
        begun = False
        try:
            for item in self.watched.pieces(spec, picture, seen):
                begun = True
                yield item
        except LostError as error:
            if begun:
                raise MediaError("device_lost", f"{self.name}: {error}") from None
            raise ConfigError(
                f"source.device: {self.device}: {error}; expected an index or a path (source.list=true shows them)"
            ) from None
