"""A microphone, through PortAudio."""

import queue
import sys
import time
from collections.abc import Iterator
from typing import Any

from pydantic import PositiveFloat

from pipeline.errors import ConfigError, MediaError
from pipeline.intake import Intake
from pipeline.media import Resampler, Samples
from pipeline.source import Piece

SILENT = 5.0  # seconds without a block from the device until it counts as gone
INSTALL = "install PortAudio (Debian, Ubuntu: apt install libportaudio2; elsewhere it comes with sounddevice)"


class Microphone:
    """Records one channel at the device's own rate and converts it as a stream."""

    def __init__(
        self,
        device: int | str | None = None,
        list: bool = False,
        chunk: PositiveFloat = 0.1,
        seconds: PositiveFloat | None = None,
    ) -> None:
        """``device``: index, name or part of a name (None: the system's choice). ``list``: only show the devices.
        ``chunk`` seconds are read at a time, for ``seconds`` in all (None: until interrupted).
        """
        self.device, self.listing, self.chunk, self.seconds = device, list, chunk, seconds
        self.name = "microphone" if device is None else f"microphone {device}"

    def devices(self) -> str:
        """The input devices, one a line: index, name, channels, rate; the system's choice is starred."""
        sound = library()
        chosen = sound.default.device[0]
        rows = [
            f"{'*' if index == chosen else ' '} {index:3}  {device['name']}  "
            f"({device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz)"
            for index, device in enumerate(sound.query_devices())
            if device["max_input_channels"] > 0
        ]
        return "\n".join(rows) or "no microphone found"

    def pieces(self, intake: Intake, seen: bool = False) -> Iterator[Piece]:
        """Samples until ``seconds`` have passed. ConfigError if there is no such device; MediaError if it goes away."""
        rate, sound = intake.only_sound("source=microphone"), library()
        try:
            found = sound.query_devices(self.device, "input")
            own = int(found["default_samplerate"])
            blocks: queue.Queue[Samples] = queue.Queue(maxsize=256)
            overflows = [0]

            def receive(data: Any, frames: int, times: Any, status: Any) -> None:
                overflows[0] += bool(status.input_overflow)
                try:
                    blocks.put_nowait(data[:, 0].copy())
                except queue.Full:
                    overflows[0] += 1

            stream = sound.InputStream(own, round(self.chunk * own), self.device, 1, "float32", callback=receive)
            stream.start()
        except (ValueError, sound.PortAudioError) as error:
            raise ConfigError(f"source.device: {self.device!r}: {error}; see source.list=true") from None
        convert = Resampler(own, rate) if own != rate else None
        limit = time.monotonic() + (self.seconds or float("inf"))
        with stream:
            while time.monotonic() < limit:
                try:
                    block = blocks.get(timeout=SILENT)
                except queue.Empty:
                    raise MediaError("device_lost", f"{found['name']} delivers no sound; is it still there?") from None
                if overflows[0]:
                    print(f"warning: {overflows[0]} blocks of sound were lost", file=sys.stderr)
                    overflows[0] = 0
                yield Piece((convert(block) if convert else block,))
        if convert:
            yield Piece((convert.close(),))


def library() -> Any:
    """sounddevice, loaded only when needed; ConfigError if PortAudio is missing."""
    try:
        import sounddevice
    except OSError as error:
        raise ConfigError(f"source=microphone: {error}; {INSTALL}") from None
    return sounddevice
