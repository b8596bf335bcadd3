"""Pictures from the network: an IP camera, a media server, another program."""

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.camera import Capture, Keep, LostError
from pipeline.sources.grabbers import address as grab
from pipeline.sources.live import Live
from pipeline.sources.source import Gap, Piece, Policy, Source

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt")


class Url(Source):
    """Any address that FFmpeg plays, decoded in a process of its own with as little delay as it allows."""

    live = True

    def __init__(
        self,
        url: str,
        transport: Literal["tcp", "udp"] = "tcp",
        keep: Keep = "newest",
        seconds: PositiveFloat | None = None,
        timeout: PositiveFloat = 2.0,
        opening: PositiveFloat = 10.0,
        frozen: PositiveFloat | None = None,
        patience: PositiveFloat | None = None,
        gap: Policy = "reset",
    ) -> None:
        """``transport`` of RTSP. ``opening``: seconds that the first picture may take; the rest as for ``webcam``."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ConfigError(
                f"source.url: got {url!r}; expected an address that begins with one of {', '.join(SCHEMES)}; "
                "for files choose source=file"
            )
        self.url, self.name = (
            url,
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        )  # without a password
        self.options = {"rtsp_transport": transport} if parts.scheme.startswith("rtsp") else {}
        self.keep, self.opening, self.frozen = keep, opening, frozen
        self.watched = Live(self.open, self.name, timeout, opening, patience, gap, seconds)

    def open(self) -> Capture:
        """The stream, capturing. LostError if it cannot be."""
        return Capture(grab, (self.url, self.options, self.opening), self.keep, self.frozen, self.opening + 5)

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """MediaError if the address does not answer, or is lost for good."""
        picture = spec.only_pictures("source=url")
        try:
            yield from self.watched.pieces(spec, picture, seen)
        except LostError as error:
            raise MediaError("unreachable", f"{self.name}: {error} (source.url)") from None
