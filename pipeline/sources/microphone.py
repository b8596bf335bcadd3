"""A microphone, through PortAudio."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.camera import LostError
from pipeline.sources.recorder import Put, Recorder
from pipeline.sources.source import Gap, Piece, Policy, Source

PATIENCE = 10.0  # seconds for which PortAudio may open or close a device
INSTALL = "install PortAudio (Debian, Ubuntu: apt install libportaudio2; elsewhere it comes with sounddevice)"
MOST = 8  # channels that are opened to be mixed


class Microphone(Source):
    """Records one channel, or the mean of all, at the device's own rate, converts it as a stream, and tells of every
    loss as a gap.
    """

    live = heard = True

    def __init__(
        self,
        device: int | str | None = None,
        list: bool = False,
        channel: NonNegativeInt | Literal["mix"] = 0,
        rate: PositiveInt | None = None,
        chunk: Annotated[float, Field(ge=0.001, le=1.0)] = 0.02,
        buffer: Annotated[float, Field(ge=1.0, le=600.0)] = 10.0,
        seconds: PositiveFloat | None = None,
        timeout: PositiveFloat = 1.5,
        opening: PositiveFloat = 10.0,
        muted: PositiveFloat | None = 5.0,
        patience: PositiveFloat | None = None,
        gap: Policy = "reset",
    ) -> None:
        """``device``: index, name or part of a name (None: the system's choice). ``list``: only show the devices.
        ``channel``: from 0 on, or ``mix``. ``rate`` to record at (None: the device's own). ``chunk`` seconds are read
        at a time, and up to ``buffer`` seconds wait for a model that is busy; ``seconds`` in all (None: until
        interrupted). No sound for ``timeout`` seconds (``opening`` for the first) is a loss; the device is then tried
        again and again, for ``patience`` seconds (None: for ever). ``muted`` seconds of nothing but zeros are warned of
        (None: never). ``gap``: see ``Stream.gap``.
        """
        self.device, self.listing, self.channel, self.asked, self.chunk = device, list, channel, rate, chunk
        self.name = "microphone" if device is None else f"microphone {device}"
        limits = timeout, opening, patience, gap, seconds
        self.watched = Recorder(self.open, self.name, *limits, channel, buffer, muted)

    def open(self, again: bool) -> "Device":
        """The device, ready to start; if it was lost, among the devices that there are by now. LostError if it cannot
        be opened.
        """
        sound = library()
        if again:  # PortAudio looks for devices only when it starts
            within(PATIENCE, lambda: (sound._terminate(), sound._initialize()))
        return Device(sound, self.device, self.channel, self.asked, self.chunk)

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

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        """Samples and gaps until ``seconds`` have passed. ConfigError if there is no such device; MediaError if it
        gives no sound, or is lost for good.
        """
        rate, begun = spec.only_sound("source=microphone"), False
        try:
            for item in self.watched.pieces(rate):
                begun = True
                yield item
        except LostError as error:
            if begun:
                raise MediaError("device_lost", f"{self.name}: {error}") from None
            device = "the system's choice" if self.device is None else repr(self.device)
            raise ConfigError(f"source.device: {device}: {error}; see source.list=true") from None


class Device:
    """A PortAudio stream; ``ended`` once PortAudio says so."""

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
            self.channels = min(there, MOST) if channel == "mix" else int(channel) + 1
            self.stream = within(
                PATIENCE,
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
        """PortAudio's word that no more will come."""
        self.ended = True

    def start(self, put: Put) -> None:
        """Deliver from now on. LostError if it cannot."""
        self.put = put
        try:
            within(PATIENCE, self.stream.start)
        except self.failure as error:
            raise LostError(str(error)) from None

    def close(self) -> None:
        """Stop; a device that hangs in it is left behind."""
        self.put = None
        with suppress(LostError):
            within(2.0, lambda: self.stream.close(ignore_errors=True))


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises; LostError if it has not ended by then: drivers hang, in calls that nothing ends
    and no signal interrupts, so it is done in a thread that may be left behind.
    """
    found: list[Any] = []
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # raised again, by who waits
            wrong.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if wrong:
        raise wrong[0]
    if not found:
        raise LostError(f"the driver has not answered for {seconds:g} s")
    return found[0]


def library() -> Any:
    """sounddevice, loaded only when needed; ConfigError if PortAudio is missing."""
    try:
        import sounddevice
    except OSError as error:
        raise ConfigError(f"source=microphone: {error}; {INSTALL}") from None
    return sounddevice
