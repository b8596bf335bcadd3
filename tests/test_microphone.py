"""Microphones: the ring, losses and clocks under a virtual clock, and real PortAudio streams from a null sink."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import soxr
from conftest import ROOT, tone_clip, until
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.sources.audio_timeline import MIN_LOSS_SECONDS
from pipeline.sources.capture import LostError
from pipeline.sources.live_audio import POLL_SECONDS, LiveAudio
from pipeline.sources.microphone import Microphone, run_within
from pipeline.sources.source import Gap, Piece

RATE = 16000
CODE = 4001  # samples say which they are: number n is (n % CODE + 1) / 8192, exact in float32


class World:
    """Virtual time, and what happens in it."""

    def __init__(self):
        self.now, self.opened, self.told, self.device = 100.0, [], [], None

    def sleep(self, seconds):
        until = self.now + seconds
        while self.device is not None and self.device.next() <= until:
            self.now = max(self.now, self.device.next())
            self.device.deliver()
        self.now = until


class Fake:
    """A device whose sample n of time t says so. ``rate``: what it says; ``real``: what it delivers. ``lost``: spans in
    which its sound is lost, and whether it says so; ``jams``: spans in which nothing comes, but comes at the end of
    them; ``frozen``: when it stops; ``gone``: when it ends; ``late``: of each block, in seconds.
    """

    what = "a plan"

    def __init__(self, world, rate=RATE, real=None, block=0.02, begin=0.1, lost=(), jams=(), frozen=1e9, gone=1e9,
                 channels=1, late=lambda: 0.0, sound=None):  # fmt: skip
        self.world, self.rate, self.real, self.channels = world, rate, real or rate, channels
        self.size, self.lost, self.jams, self.frozen, self.gone = round(block * rate), list(lost), jams, frozen, gone
        self.late, self.sound, self.put = late, sound, None
        self.number = round((world.now + begin) * self.real)  # of the next sample, on the clock of the world
        self.flag, self.delay, self.last = False, late(), 0.0

    @property
    def ended(self):
        return self.world.now >= self.gone

    def start(self, put):
        self.put, self.world.device = put, self

    def next(self):
        at = (self.number + self.size) / self.real
        if self.put is None or at > min(self.frozen, self.gone):
            return 1e12
        for begin, end in self.jams:
            if begin <= at < end:
                at = end
        return max(at + self.delay, self.last)

    def deliver(self):
        self.last = self.world.now
        for span in [span for span in self.lost if span[0] <= self.number / self.real]:
            self.lost.remove(span)
            self.number += round((span[1] - span[0]) * self.real)
            self.flag = span[2]
            return
        numbers = self.number + np.arange(self.size)
        data = ((numbers % CODE + 1) / 8192).astype(np.float32) if self.sound is None else self.sound(numbers)
        data = data.reshape(self.size, -1) if data.ndim > 1 else np.repeat(data[:, None], self.channels, 1)
        self.put(data, self.size / self.real, self.flag)
        data[:] = -1  # a driver's memory is used again
        self.number += self.size
        self.flag, self.delay = False, self.late()

    def close(self):
        self.put = None


class Audio(LiveAudio):
    """Devices opened one after another; a plan that is a number cannot be opened before that time."""

    def __init__(self, plans, **how):
        super().__init__(timeout=1.5, **how)
        self.name = "fake"
        self.world, self.plans = World(), list(plans)
        self.clock, self.sleep, self.warn = lambda: self.world.now, self.world.sleep, self.world.told.append

    def open(self, again):
        assert again == bool(self.world.opened)
        self.world.opened.append(self.world.now)
        if isinstance(self.plans[0], float):
            if self.world.now < self.plans[0]:
                raise LostError("not there")
            self.plans.pop(0)
        return Fake(self.world, **self.plans.pop(0))


def recorded(plans, seconds, rate=RATE, **how):
    """What comes of devices: (now, item); and the world."""
    audio = Audio(plans, seconds=seconds, **how)
    return [(audio.world.now, item) for item in audio.pieces(InputSpec(rate))], audio.world


def gaps(found):
    return [item for _, item in found if isinstance(item, Gap)]


def ticks(found):
    return sum(item.ticks if isinstance(item, Gap) else len(item.x[0]) for _, item in found)


def errors(found):
    """For each stretch of samples, by how many ticks it is out of place, with the first as the reference."""
    at, zero, wrong = 0, None, []
    for _, item in found:
        if isinstance(item, Gap):
            at += item.ticks
            continue
        if len(item.x[0]):
            numbers = np.round(item.x[0] * 8192).astype(int) - 1
            assert np.array_equal(np.diff(numbers) % CODE, np.ones(len(numbers) - 1))
            shift = int(numbers[0] - at) % CODE
            zero = shift if zero is None else zero
            wrong.append((shift - zero + CODE // 2) % CODE - CODE // 2)
        at += len(item.x[0])
    return np.array(wrong)


def test_every_sample_is_passed_on_once_with_its_level_and_age(capsys):
    found, world = recorded([{}], 5.0)
    pieces = [(now, item) for now, item in found if len(item.x[0])]
    assert not gaps(found) and not world.told and not errors(found).any()
    assert ticks(found) == 244 * 320 and "fake: a plan" in capsys.readouterr().err  # it begins after 0.1 s
    for now, piece in pieces:
        assert 0 <= now - piece.captured <= POLL_SECONDS + 1e-6
        assert piece.level == pytest.approx(20 * np.log10(piece.x[0].max()))


@pytest.mark.parametrize("own", [44100, 48000, 8000, 22050])
def test_another_rate_is_converted_as_in_one_go_and_not_one_sample_too_many(own):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(40 * own).astype(np.float32) / 8
    found, world = recorded([{"rate": own, "block": 0.023, "sound": lambda numbers: noise[numbers - 100 * own]}], 30.0)
    y = np.concatenate([item.x[0] for _, item in found])
    first = round(100.1 * own) - 100 * own
    count = next(n for n in range(len(y) * own // RATE - own, 40 * own) if n % round(0.023 * own) == 0
                 and round(Fraction(n * RATE, own)) >= len(y))  # fmt: skip
    assert np.abs(y - soxr.resample(noise[first : first + count], own, RATE, "HQ")).max() < 1e-5
    assert 29.8 <= len(y) / RATE <= 29.9 and not gaps(found) and not world.told


def test_device_that_stops_is_lost_in_time_and_comes_back_with_the_length_of_the_gap():
    found, _ = recorded([{"frozen": 103.0}, 106.0, {"begin": 0.7}], 12.0)
    lost, back = gaps(found)
    assert lost == Gap(0, "no sound for 1.5 s", "reset") and back.why == "no sound for 1.5 s; it is back"
    assert next(now for now, item in found if item is lost) <= 103.0 + 1.6
    assert np.abs(errors(found)).max() <= 1
    assert ticks(found) == pytest.approx((112.0 - 100.1) * RATE, abs=700)
    assert [item.how for item in gaps(recorded([{"frozen": 101.0}, {}], 9.0, gap="keep")[0])] == ["keep"] * 2


def test_unplugged_device_is_told_at_once():
    found, world = recorded([{"gone": 101.0}, math.inf], 10.0)
    assert gaps(found) == [Gap(0, "the device has gone", "reset")] and world.opened[1] <= 101.1


@pytest.mark.parametrize(("plans", "seconds", "told", "apart"), [
    ([{"gone": 102.0}, {"gone": 103.0}, {"begin": 0.3}, {}], 10.0, [False, True, False, True], 1),
    ([{"gone": 102.0}, {"gone": 102.4}, {}], 10.0, [False, True, False, True], 2),  # before it was in step
    ([{"gone": 102.0}, {"frozen": 0.0}, {"frozen": 0.0}, {}], 40.0, [False, True], 1),  # opened, but silent for long
])  # fmt: skip
def test_device_that_comes_back_and_goes_again(plans, seconds, told, apart):
    found, _ = recorded(plans, seconds)
    assert [gap.ticks > 0 for gap in gaps(found)] == told and np.abs(errors(found)).max() <= apart


def test_device_that_never_gives_sound_is_an_error():
    with pytest.raises(MediaError, match="no sound for 10 s"):
        recorded([{"frozen": 0.0}], 60.0)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("seconds", [0.03, 0.2, 0.9])
def test_lost_sound_is_a_gap_of_its_length_at_its_place(told, seconds):
    found, world = recorded([{"lost": [(103.0, 103.0 + seconds, told)]}], 8.0)
    if not told and seconds < 0.25:  # below LATE nobody can tell it from a jam
        assert not gaps(found)
        return
    (gap,) = gaps(found)
    assert gap.ticks == pytest.approx(seconds * RATE, abs=2) and gap.why == "the device has lost sound"
    assert np.abs(errors(found)).max() <= 2
    assert (world.told == ["the device has lost sound 1 times; see the gaps"]) == told


def test_lost_sound_with_blocks_that_jitter():
    rng = np.random.default_rng(1)
    plan = {"lost": [(103.0, 103.5, True), (107.0, 108.0, False)], "late": lambda: rng.exponential(0.004)}
    found, _ = recorded([plan], 15.0)
    assert [round(gap.ticks / RATE, 2) for gap in gaps(found)] == [0.5, 1.0]
    assert np.abs(errors(found)).max() <= 0.002 * RATE


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_jams_and_jitter_are_no_loss(seed):
    rng = np.random.default_rng(seed)
    begins = 102 + 5 * np.arange(5) + rng.uniform(0, 3, 5)
    jams = [(begin, begin + rng.uniform(0.02, 1.2)) for begin in begins]
    found, world = recorded([{"jams": jams, "late": lambda: min(0.1, rng.exponential(0.01)), "block": 0.05}], 30.0)
    assert not gaps(found) and not world.told and not errors(found).any()
    assert ticks(found) >= 29.5 * RATE


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_what_was_received_is_given_before_an_interrupt(signal):
    audio, found = Audio([{"rate": 48000}]), []

    def sleep(seconds):
        if audio.world.now > 103.0:
            raise signal
        audio.world.sleep(seconds)

    audio.sleep = sleep
    with pytest.raises(signal):
        for item in audio.pieces(InputSpec(RATE)):
            found.append((audio.world.now, item))
            if len(found) == 20:
                audio.world.sleep(2.6)  # busy, while the device goes on
    assert ticks(found) >= 2.9 * RATE


def test_a_busy_listener_loses_only_what_has_no_room():
    audio, found = Audio([{}], seconds=30.0, buffer=2.0), []
    for item in audio.pieces(InputSpec(RATE)):
        found.append((audio.world.now, item))
        if len(found) in (50, 150):
            audio.world.sleep(1.0 if len(found) == 50 else 6.0)
    (gap,) = gaps(found)
    assert gap.why == "behind" and gap.ticks == pytest.approx(4.0 * RATE, abs=700) and not errors(found).any()
    assert audio.world.told == ["the device has lost sound 0 times, and we had no room for it 1 times; see the gaps"]


@pytest.mark.parametrize("real", [RATE * 1.001, RATE * 0.999, RATE * 1.0003, RATE * 1.0001])
def test_drift_is_told_and_time_is_the_devices(real):
    found, world = recorded([{"real": real, "block": 0.1}], 300.0)
    assert not gaps(found) and not errors(found).any()
    assert ticks(found) == pytest.approx(299.85 * real, abs=2 * RATE / 10)
    ppm = 1e6 * abs(real / RATE - 1)
    if ppm < 200:  # a good crystal
        assert not world.told
        return
    (line,) = world.told
    assert line.startswith("the device's clock is ") and abs(int(line.split()[4]) - ppm) <= 2
    assert ("faster" if real > RATE else "slower") in line


@pytest.mark.parametrize(("said", "real"), [(48000, 44100), (44100, 48000), (48000, 16000), (16000, 48000)])
def test_another_rate_than_it_says_is_heard_within_two_seconds(said, real):
    """Opened again it is right, as when a headset has changed its profile."""
    plans = [{"rate": said, "real": real}, {"rate": said}]
    found, world = recorded(plans, 12.0, rate=said)
    lost = gaps(found)[0]
    assert len(gaps(found)) == 2 and next(now for now, item in found if item is lost) - 100.1 <= 2.0 + POLL_SECONDS
    assert lost.why.startswith(f"it delivers {real} samples a second, not {said}")
    ahead = 2.0 * max(0.0, real / said - 1)  # seconds that were heard too many before it was known
    assert 11.6 <= ticks(found) / said <= 12.0 + ahead
    assert len(world.opened) == 2 and world.opened[1] - world.opened[0] <= 2.2


def test_a_device_that_goes_on_with_another_rate_is_believed_by_ear():
    tone = 440.0
    plan = {"rate": 48000, "real": 44100, "sound": lambda n: np.sin(2 * np.pi * tone * n / 44100).astype(np.float32)}
    found, world = recorded([plan] * 4, 30.0)
    assert [gap.ticks > 0 for gap in gaps(found)] == [False, True] * 2 and len(world.opened) == 3
    y = np.concatenate([item.x[0] for _, item in found if isinstance(item, Piece)][-400:])
    heard = np.abs(np.fft.rfft(y * np.hanning(len(y)))).argmax() * RATE / len(y)
    assert heard == pytest.approx(tone, abs=1) and ticks(found) == pytest.approx(29.9 * RATE, abs=0.1 * RATE)


def test_digital_silence_is_told_once_each_time():
    def sound(numbers):
        return np.where((numbers // RATE % 20) < 10, 0, 0.5).astype(np.float32)

    found, world = recorded([{"sound": sound}], 38.0)
    assert world.told == ["digital silence for 5 s: is the microphone muted?"] * 2 and not gaps(found)
    assert recorded([{"sound": sound}], 38.0, muted=None)[1].told == []
    assert {item.level for _, item in found if len(item.x[0]) == 320} <= {-120.0, 20 * np.log10(0.5)}


def test_channels_are_chosen_or_mixed():
    def sound(numbers):
        return np.stack([numbers % 7, -(numbers % 7)], 1).astype(np.float32) / 16

    for channel, sign in ((0, 1), (1, -1), ("mix", 0)):
        found, _ = recorded([{"channels": 2, "sound": sound}], 1.0, channel=channel)
        y = np.concatenate([item.x[0] for _, item in found])
        assert np.array_equal(y * 16, sign * ((np.arange(len(y)) + round(100.1 * RATE)) % 7))


def test_a_delay_below_the_jitter_is_no_loss_unless_the_device_says_so():
    assert gaps(recorded([{"lost": [(103.0, 103.0 + MIN_LOSS_SECONDS / 4, True)]}], 6.0)[0])[0].ticks >= 1


def test_drivers_that_hang_are_left_behind():
    assert run_within(5.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        run_within(5.0, lambda: 1 // 0)
    done = threading.Event()
    with pytest.raises(LostError, match=r"the driver has not answered for 0\.05 s"):
        run_within(0.05, lambda: done.wait(20))
    done.set()


def test_microphones_that_are_not_there():
    with pytest.raises(ConfigError, match=r"PortAudio|source\.device: 'no such microphone': .*see source\.list=true"):
        list(Microphone("no such microphone").pieces(InputSpec(RATE)))
    with pytest.raises(ConfigError, match="source=microphone"):
        list(Microphone().pieces(InputSpec(picture=Picture(10, 8, 8))))


SERVER = """
load-module module-native-protocol-unix
load-module module-null-sink sink_name=mic16 rate=16000 channels=1
load-module module-null-sink sink_name=mic48 rate=48000 channels=1
set-default-source mic16.monitor
set-default-sink mic16
"""
DEVICES = """
</usr/share/alsa/alsa.conf>
pcm.mic16 { type pulse device mic16.monitor }
pcm.mic48 { type pulse device mic48.monitor }
"""


@pytest.fixture
def server(tmp_path_factory):
    """The environment of a sound server with two devices that hear what is played to them, and what starts and stops it."""
    for program in ("pulseaudio", "paplay", "pactl"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} (apt install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2)")
    if not os.path.isfile("/usr/share/alsa/alsa.conf"):
        pytest.skip("no /usr/share/alsa/alsa.conf (apt install libasound2-data)")
    try:
        import sounddevice  # noqa: F401
    except OSError as error:
        pytest.skip(f"{error} (apt install libportaudio2)")
    folder = tmp_path_factory.mktemp("pulse")
    (folder / "pulse.pa").write_text(SERVER)
    (folder / "alsa.conf").write_text(DEVICES)
    own = {"XDG_RUNTIME_DIR": str(folder), "ALSA_CONFIG_PATH": str(folder / "alsa.conf"), "PULSE_LATENCY_MSEC": "20"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULSE_")} | own
    command = ["pulseaudio", "-n", "-F", str(folder / "pulse.pa"), "--daemonize=no", "--exit-idle-time=-1",
               "--disallow-exit=yes", "--use-pid-file=no"]  # fmt: skip
    running = []

    def stop():
        for process in running:
            process.kill()
            process.wait()

    def start():
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running[:] = [process]
        until(lambda: answers(environment) or process.poll() is not None, 10)
        if process.poll() is not None:
            pytest.skip("pulseaudio does not start here")
        return process

    try:
        start()
        yield environment, start, stop
    finally:
        stop()


def answers(environment):
    return subprocess.run(["pactl", "info"], env=environment, capture_output=True).returncode == 0


def rows(path):
    """What a run has written so far."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.long
def test_a_device_that_goes_and_comes_back(server, trained, tmp_path):
    """Through PortAudio, at another rate: the sound server dies, and another comes some seconds later. What is played
    then is heard.
    """
    environment, start, stop = server
    out = tmp_path / "out.jsonl"
    command = [sys.executable, ROOT / "infer.py", f"checkpoint={trained}", "source=microphone", "source.device=mic48",
               "source.rate=48000", "source.seconds=300", "source.gap=keep", "sink=jsonl", f"sink.jsonl.path={out}",
               "sink.jsonl.posteriors=true"]  # fmt: skip
    process = subprocess.Popen([*map(str, command)], env=environment, cwd=ROOT, stderr=subprocess.PIPE)

    def told(kind):
        return [row for row in rows(out) if row["type"] == kind]

    try:
        until(lambda: len(rows(out)) > 20 or process.poll() is not None, 60)
        stop()
        gone = time.monotonic()
        until(lambda: told("gap"), 5.0)
        assert time.monotonic() - gone <= 2.5  # two, and what the machine is busy with
        time.sleep(2.0)
        start()
        until(lambda: len(told("gap")) >= 2 or process.poll() is not None, 15)
        back = time.monotonic()
        tone = tone_clip(tmp_path / "tone.wav", 2600, 1.5)
        subprocess.run(["paplay", "--device=mic48", tone], env=environment, check=True, timeout=30)
        process.terminate()
        err = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    first, second, *more = told("gap")
    assert process.returncode == 143 and first["length"] == 0 and not more, err
    assert second["why"].endswith("; it is back") and second["how"] == "keep"
    assert 2.0 <= second["length"] <= back - gone + 0.5
    assert "high" in {row["label"] for row in told("event")}
    assert rows(out)[-1]["time"] >= second["start"] + second["length"] + 0.5  # it went on
