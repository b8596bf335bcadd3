"""Pictures from the network: an IP camera, a media server, another program."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import PositiveFloat

from pipeline.core.errors import ConfigError, MediaError
from pipeline.sources.capture import Capture, Keep, LostError
from pipeline.sources.grabbers import grab_url
from pipeline.sources.live_video import LiveVideo
from pipeline.sources.source import Policy

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt")


class Url(LiveVideo):
    """Any address that FFmpeg plays, decoded in a process of its own with the least delay that it allows."""

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
        """``transport`` of RTSP. ``keep``, ``frozen``: see ``Webcam``. The rest: see ``LiveSource``."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ConfigError(
                f"source.url: got {url!r}; expected an address that begins with one of {', '.join(SCHEMES)}; "
                "for files choose source=file"
            )
        public = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        super().__init__(public, timeout, opening, patience, gap, seconds)
        self.url, self.keep, self.frozen = url, keep, frozen
        self.options = {"rtsp_transport": transport} if parts.scheme.startswith("rtsp") else {}

    def open(self, again: bool) -> Capture:
        return Capture(grab_url, (self.url, self.options, self.opening), self.keep, self.frozen, self.opening + 5)

    def failure(self, error: LostError) -> MediaError:
        return MediaError("unreachable", f"{self.name}: {error} (source.url)")
