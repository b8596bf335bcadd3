"""Pictures from the network: an IP camera, a media server, another program."""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from pipeline.core.errors import ConfigError, MediaError
from pipeline.sources.capture import Capture, LostError
from pipeline.sources.grabbers import grab_url
from pipeline.sources.live_video import LiveVideo

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt")


@dataclass(eq=False)
class Url(LiveVideo):
    """Any address that FFmpeg plays, decoded in a process of its own with the least delay that it allows.

    ``transport`` of RTSP.
    """

    url: str = field(repr=False)  # which may have a password
    transport: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in SCHEMES:
            raise ConfigError(
                f"source.url: got {self.url!r}; expected an address that begins with one of {', '.join(SCHEMES)}; "
                "for files choose source=file"
            )
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        self.options = {"rtsp_transport": self.transport} if parts.scheme.startswith("rtsp") else {}

    def open(self, again: bool) -> Capture:
        return Capture(grab_url, (self.url, self.options, self.opening), self.keep, self.frozen, self.opening + 5)

    def failure(self, error: LostError) -> MediaError:
        return MediaError("unreachable", f"{self.name}: {error} (source.url)")
