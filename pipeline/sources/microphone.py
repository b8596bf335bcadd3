"""A microphone, through PortAudio."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, UserError
from pipeline.sources.capture import LostError
from pipeline.sources.live_audio import LiveAudio, Put

DRIVER_SECONDS = 10.0  # for which PortAudio may open or close a device
INSTALL = "install PortAudio (Debian, Ubuntu: apt install libportaudio2; elsewhere it comes with sounddevice)"
MAX_CHANNELS = 8  # that are mixed


@dataclass(eq=False)
class Microphone(LiveAudio):
    """Records at the device's own rate and converts it as a stream.

    ``device``: index, name or part of a name (None: the system's default). ``list``: only list the devices. ``rate`` to
    record at, in Hz (None: the device's own). ``chunk``: seconds that are read at a time.
    """

    device: int | str | None = None
    list: bool = False
    rate: PositiveInt | None = None
    chunk: Annotated[float, Field(ge=0.001, le=1.0)] = 0.02
    timeout: PositiveFloat = field(default=1.5, kw_only=True)

    def __post_init__(self) -> None:
        self.name = "microphone" if self.device is None else f"microphone {self.device}"

    def open(self, again: bool) -> "PortAudioDevice":
        sound = sounddevice()
        if again:  # PortAudio looks for devices only when it starts
            run_within(DRIVER_SECONDS, lambda: (sound._terminate(), sound._initialize()))
        return PortAudioDevice(sound, self.device, self.channel, self.rate, self.chunk)

    def list_devices(self) -> str | None:
        """One input device a line: index, name, channels, rate. A star marks the system's default."""
        if not self.list:
            return None
        sound = sounddevice()
        default = sound.default.device[0]
        rows = [
            f"{'*' if index == default else ' '} {index:3}  {device['name']}  "
            f"({device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz)"
            for index, device in enumerate(sound.query_devices())
            if device["max_input_channels"] > 0
        ]
        return "\n".join(rows) or "no microphone found"

    def failure(self, error: LostError) -> UserError:
        if self.started:
            return super().failure(error)
        device = "the system's choice" if self.device is None else repr(self.device)
        return ConfigError(f"source.device: {device}: {error}; see source.list=true")


class PortAudioDevice:
    """A PortAudio input stream. ``ended``: PortAudio has ended it."""

    def __init__(
        self, sound: Any, device: int | str | None, channel: int | str, rate: int | None, chunk: float
    ) -> None:
        """``rate`` in Hz (None: the device's), ``chunk`` in seconds. LostError if it cannot be opened."""
        self.ended = False
        self.put: Put | None = None
        try:
            if device is None and not any(one["max_input_channels"] for one in sound.query_devices()):
                raise LostError("there is no microphone")
            found = sound.query_devices(device, "input")
            self.rate = rate or int(found["default_samplerate"])
            there = int(found["max_input_channels"])
            if isinstance(channel, int) and channel >= there:
                raise LostError(f"has {there} channels, so source.channel={channel} is not there")
            self.channels = min(there, MAX_CHANNELS) if channel == "mix" else int(channel) + 1
            self.stream = run_within(
                DRIVER_SECONDS,
                lambda: sound.InputStream(
                    self.rate, round(chunk * self.rate), device, self.channels, "float32",
                    callback=self.receive, finished_callback=self.finish,
                ),
            )  # fmt: skip
        except (ValueError, sound.PortAudioError) as error:
            raise LostError(str(error)) from None
        self.failure = sound.PortAudioError
        self.what = f"{found['name']}, {self.rate} Hz, {'mean of ' if channel == 'mix' else ''}{self.channels} channels"

    def receive(self, data: Any, frames: int, times: Any, status: Any) -> None:
        """PortAudio's callback."""
        if self.put is not None:
            self.put(data, times.currentTime - times.inputBufferAdcTime, status.input_overflow)

    def finish(self) -> None:
        """PortAudio's callback at the end."""
        self.ended = True

    def start(self, put: Put) -> None:
        """Deliver from now on. LostError if that fails."""
        self.put = put
        try:
            run_within(DRIVER_SECONDS, self.stream.start)
        except self.failure as error:
            raise LostError(str(error)) from None

    def close(self) -> None:
        """Stop. A driver that hangs is left behind."""
        self.put = None
        with suppress(LostError):
            run_within(2.0, lambda: self.stream.close(ignore_errors=True))


def run_within(seconds: float, work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises; LostError after ``seconds``. It runs in a thread that may be left behind,
    because drivers hang in calls that no signal interrupts.
    """
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # raised again in the caller
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError:
        raise LostError(f"the driver has not answered for {seconds:g} s") from None


def sounddevice() -> Any:
    """The library, imported only when needed; ConfigError if PortAudio is missing."""
    try:
        import sounddevice
    except OSError as error:
        raise ConfigError(f"source=microphone: {error}; {INSTALL}") from None
    return sounddevice
