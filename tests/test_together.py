"""A microphone and a camera on one clock: a drifting hour under a virtual clock, losses of either, and real threads."""

import re
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from conftest import ROOT, configured, free_port, options, read_jsonl, refused, until
from hypothesis import given, settings
from hypothesis import strategies as st
from test_golden import model_of
from test_microphone import server  # noqa: F401 - a fixture

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.sources.av_sync import MAX_FILL_SECONDS, AVSync
from pipeline.sources.both import Both
from pipeline.sources.source import Gap, Piece, Source

RATE, FPS = 1000, 10
BOTH = InputSpec(RATE, Picture(FPS, 2, 2))
GRAIN = RATE // FPS


def image(number):
    """A picture that says its number."""
    return np.frombuffer(int(number).to_bytes(12, "big"), np.uint8).reshape(2, 2, 3)


def number(picture):
    return int.from_bytes(picture.tobytes(), "big")


class World:
    """Devices whose sound and pictures say when they were captured: sample n is n, mod 1000 (as a fraction of them);
    picture n was captured at ``n * period``. ``drift``: by how much the microphone's clock is faster.
    """

    def __init__(self, drift=0.0, camera=30.0, chunk=0.1, jitter=0.0, seed=0, lost=(), blind=(), late=0.0, how="reset"):
        self.rate, self.period, self.chunk, self.jitter = RATE * (1 + drift), 1 / camera, chunk, jitter
        self.rng, self.lost, self.blind = np.random.default_rng(seed), list(lost), list(blind)
        self.sync = AVSync(BOTH, how, late)
        self.delay = late  # of the camera
        self.found = []

    def events(self, seconds):
        """``(now, kind, item)`` in the order in which they come."""
        rows, place, since = [], 0, 0
        for index in range(int(seconds / self.chunk)):
            first, last = round(index * self.chunk * self.rate), round((index + 1) * self.chunk * self.rate)
            captured = last / self.rate
            away = [span for span in self.lost if span[0] <= captured < span[1]]
            if away:
                rows += [(away[0][0] + 0.3, "sound", Gap(0, "lost"))] if place is not None else []
                since, place = (place if place is not None else since), None
                continue
            if place is None:
                rows.append((captured, "sound", Gap(first - since, "lost; it is back")))
            x = (np.arange(first, last) % 1000 / 1000).astype(np.float32)
            seen = captured + self.rng.uniform(0, self.jitter)
            rows.append((seen + 0.001, "sound", Piece((x,), seen)))
            place = last
        for index in range(int(seconds / self.period)):
            captured = index * self.period
            away = [span for span in self.blind if span[0] <= captured < span[1]]
            if away:
                if captured - self.period < away[0][0]:
                    rows.append((captured + 0.3, "picture", Gap(0, "lost")))
                continue
            come = captured + self.delay
            rows.append((come + self.rng.uniform(0, 0.02), "picture", Piece((image(index)[None],), come)))
        return sorted(rows, key=lambda row: row[0])

    def run(self, seconds):
        """All that comes out, with when."""
        for now, kind, item in self.events(seconds):
            take = self.sync.add_sound if kind == "sound" else self.sync.add_picture
            self.found += [(now, piece) for piece in take(item, now)]
        return self.found

    def periods(self):
        """For each period: when its sound was captured (None if absent), when its picture was, and how late it came.

        The sound's time is exact: what is given is the microphone's samples in order, each in its place.
        """
        at, rows = 0, []
        for now, item in self.found:
            if isinstance(item, Gap):
                at += item.ticks
                continue
            sound, pictures, marks = item.x
            assert len(sound) == GRAIN and pictures.shape == (1, 2, 2, 3) and marks.shape == (1, 2)
            there, seen = marks[0]
            if there:
                heard = np.flatnonzero(sound)
                wrong = (np.round(sound * 1000).astype(int) - at - np.arange(GRAIN))[heard] % 1000
                assert len(heard) >= GRAIN // 2 - 1 and set(wrong) <= {0}
            rows.append((at / self.rate, number(pictures[0]) * self.period if seen else None, bool(there), now))
            at += GRAIN
        return rows


@pytest.mark.parametrize("drift", [400e-6, -400e-6])
def test_drift_does_not_part_them(drift):
    """At 400 ppm the clocks are 0.18 s apart in the end."""
    world = World(drift, jitter=0.004)
    world.run(450.0)
    rows = world.periods()
    assert len(rows) >= 4_490 and all(there for _, _, there, _ in rows)
    skew = np.array([begins - captured for begins, captured, _, _ in rows[1:]])
    assert skew.min() >= -0.003 and skew.max() <= 1 / 30 + 0.005, (skew.min(), skew.max())
    waits = np.array([now - begins for begins, _, _, now in rows])
    assert waits.max() <= 0.1 + world.chunk + 0.01  # a period, and the rest of a chunk
    assert "99 %" in world.sync.summary() and np.quantile(world.sync.lags, 0.99) <= 1 / 30 + 0.005


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([10.0, 15.0, 29.97, 60.0]), st.floats(0.01, 0.15))
def test_pictures_are_the_last_ones_until_their_period_begins(seed, camera, chunk):
    world = World(camera=camera, chunk=chunk, seed=seed)
    world.run(20.0)
    rows = world.periods()
    assert len(rows) >= 197
    for begins, captured, there, _ in rows[2:]:
        assert there and captured is not None
        assert -0.002 <= begins - captured <= 1 / camera + 0.002 + max(0.0, chunk - 0.1)


def test_a_camera_that_is_known_to_be_late_is_set_back():
    for late in (0.0, 0.12):
        world = World(late=late)
        world.run(20.0)
        skew = [begins - captured for begins, captured, _, _ in world.periods()[5:]]
        assert min(skew) >= -0.002 and max(skew) <= 1 / 30 + 0.1  # slack ends the waiting


def test_pictures_go_on_without_sound_which_comes_back_in_its_place():
    world = World(lost=[(5.0, 9.04), (12.0, 12.2)])
    world.run(20.0)
    rows = world.periods()
    away = [begins for begins, _, there, _ in rows if not there]
    assert away[0] >= 4.9 and 3.8 <= sum(begins < 10 for begins in away) / FPS <= 4.2 and len(rows) >= 198
    during = [(begins, captured, now) for begins, captured, there, now in rows if 6 < begins < 8.5]
    assert all(now - begins < 0.6 for begins, _, now in during)  # not when the sound is back
    assert all(-0.002 <= begins - captured <= 0.05 for begins, captured, *_ in rows[1:])
    assert not [item for _, item in world.found if isinstance(item, Gap)]


def test_sound_goes_on_without_pictures():
    world = World(blind=[(5.0, 8.0)])
    world.run(12.0)
    rows = world.periods()
    assert all(there for _, _, there, _ in rows)
    blind = [begins for begins, captured, _, _ in rows if captured is None]
    assert 5.2 <= blind[0] <= 5.5 and 7.9 <= blind[-1] <= 8.1 and len(blind) == pytest.approx(27, abs=2)


def test_a_long_loss_of_both_is_a_gap():
    span = (5.0, 40.03)
    world = World(lost=[span], blind=[span], how="keep")
    world.run(50.0)
    (gap,) = [item for _, item in world.found if isinstance(item, Gap)]
    assert gap.ticks > MAX_FILL_SECONDS * RATE and gap.ticks % GRAIN == 0 and gap.how == "keep"
    rows = world.periods()
    assert rows[-1][0] == pytest.approx(49.8, abs=0.2)
    after = [row for row in rows if row[0] > 41]
    assert len(after) > 80 and all(there for _, _, there, _ in after)
    assert all(-0.002 <= begins - captured <= 0.05 for begins, captured, *_ in after)


class Device(Source):
    """Real time: ones of a microphone, white of a camera, in every other second, else silence and black."""

    def __init__(self, kind: str, after: float = 0.0, seconds: float = 100.0, error: bool = False) -> None:
        self.name, self.after, self.seconds, self.error = f"a {kind}", after, seconds, error

    def pieces(self, spec, seen=False):
        if self.error:
            raise MediaError("device_lost", f"no {self.name}")
        time.sleep(self.after)
        begun, period = time.monotonic(), 0.02 if spec.sound else 0.04
        for index in range(int(self.seconds / period)):
            now = begun + period * (index + 1)
            time.sleep(max(0.0, now - time.monotonic()))
            if spec.sound:
                yield Piece((np.full(spec.sound // 50, float(now % 2 >= 1), np.float32),), now)
            else:
                white = np.full((1, spec.picture.height, spec.picture.width, 3), 255 * (now % 2 >= 1), np.uint8)
                yield Piece((white,), now, ((0.0, white[0]),) if seen else ())


microphone, camera = partial(Device, "microphone"), partial(Device, "camera")


def test_real_threads_sound_and_light_change_together(capsys):
    found = list(Both(microphone(), camera(after=0.3), seconds=3.0).pieces(BOTH))
    same = [bool(p.x[0].mean() > 0.5) == bool(p.x[1].max()) for p in found if p.x[2].all() and p.x[0].std() == 0]
    assert len(found) >= 20 and len(same) >= 16 and np.mean(same) > 0.8  # they may differ where they change
    assert all(0 <= time.monotonic() - piece.captured < 6 for piece in found)
    assert "a microphone and a camera: pictures are" in capsys.readouterr().err
    seen = [piece for piece in Both(microphone(), camera(), seconds=1.0).pieces(BOTH, seen=True) if piece.seen]
    assert len(seen) >= 10 and np.all(np.diff([piece.seen[0][0] for piece in seen[3:]]) > 0)


def test_who_is_busy_loses_time_but_neither_track(capsys):
    """Half of the time is spent elsewhere, and once a second: what waits is not taken for a loss."""
    found = []
    for piece in Both(microphone(), camera(), seconds=3.5).pieces(BOTH):
        found.append(piece)
        time.sleep(1.0 if len(found) == 10 else 0.05)
    assert len(found) >= 25 and all(piece.x[2].all() for piece in found[3:])


class Endless(Source):
    """As fast as it is asked; ``asked`` counts."""

    name = "an endless source"

    def __init__(self, kind: str) -> None:
        self.kind, self.asked = kind, 0

    def pieces(self, spec, seen=False):
        begun = time.monotonic()
        while True:
            self.asked += 1
            x = np.zeros(spec.sound // 50, np.float32) if spec.sound else np.zeros((1, 2, 2, 3), np.uint8)
            yield Piece((x,), begun + self.asked / 50)


def test_what_waits_waits_in_the_devices():
    sound, picture = Endless("sound"), Endless("picture")
    pieces = Both(sound, picture).pieces(BOTH)
    for _ in range(5):
        next(pieces)
    time.sleep(0.2)
    before = sound.asked, picture.asked
    time.sleep(0.5)
    after = sound.asked, picture.asked
    pieces.close()
    assert after == before


def test_what_we_were_too_slow_for_is_passed_over():
    sync = AVSync(BOTH)
    found = [*sync.add_picture(Piece((image(1)[None],), 0.0), 0.0)]
    found += sync.add_sound(Piece((np.ones(250, np.float32),), 0.25), 0.3)
    found += sync.add_sound(Gap(1000, "behind", "reset"), 1.3)
    found += sync.add_sound(Piece((np.ones(250, np.float32),), 1.5), 1.6)
    kinds = [(item.ticks, item.how) if isinstance(item, Gap) else bool(item.x[2][0, 0]) for item in found]
    assert kinds == [True] * 3 + [(900, "keep")] + [True] * 3  # of two periods, half was heard


def test_one_that_fails_at_the_start_is_an_error_later_it_is_absent(capsys):
    for one, two in ((microphone(error=True), camera()), (microphone(), camera(error=True))):
        with pytest.raises(MediaError, match=r"no a (microphone|camera)"):
            list(Both(one, two, seconds=5.0).pieces(BOTH))
    found = list(Both(microphone(), camera(seconds=0.5), seconds=1.8).pieces(BOTH))
    assert not found[-1].x[2][0, 1] and found[-1].x[2][0, 0] and found[3].x[2].all()
    found = list(Both(microphone(seconds=0.5), camera(), seconds=1.8).pieces(BOTH))
    assert not found[-1].x[2][0, 0] and found[-1].x[2][0, 1] and len(found) >= 10
    assert len(list(Both(microphone(seconds=0.5), camera(seconds=0.5)).pieces(BOTH))) <= 15
    with pytest.raises(ConfigError, match="source=both gives sound and pictures"):
        list(Both(microphone(), camera()).pieces(InputSpec(16000)))
    until(lambda: not [thread for thread in threading.enumerate() if "(deliver)" in thread.name])


def test_the_command_line_composes_it(tmp_path):
    config = configured("infer", "source=both", "source@source.picture=url", "source.picture.url=udp://127.0.0.1:5000")
    assert config["source"]["picture"]["_target_"].endswith("Url") and "both" in options("source")
    refused("source.late", "infer.py", "source=both", "source.late=x", cwd=tmp_path)


SENDER = """
import sys, time, av, numpy as np
url, seconds, rate = sys.argv[1], float(sys.argv[2]), 30
out = av.open(url, "w", format="mpegts", options={"pkt_size": "1316"})
track = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "tune": "zerolatency", "g": "10"})
track.width, track.height, track.pix_fmt = 160, 120, "yuv420p"
rng, started = np.random.default_rng(0), time.monotonic()
for number in range(round(seconds * rate)):
    image = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), 20, 0), 20, 1)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts = number
    out.mux(track.encode(frame))
    time.sleep(max(0.0, started + (number + 1) / rate - time.monotonic()))
"""


def test_a_real_microphone_and_a_real_stream_of_pictures(server, tmp_path):  # noqa: F811
    """PortAudio from a null sink, and UDP: both are there from the first answer on, and not far apart."""
    environment, _, _ = server
    model_of("both").save(tmp_path / "model.safetensors")
    url, out = f"udp://127.0.0.1:{free_port()}", tmp_path / "out.jsonl"
    sender = subprocess.Popen([sys.executable, "-c", SENDER, url, "60"], stderr=subprocess.DEVNULL)
    command = ["infer.py", f"checkpoint={tmp_path / 'model.safetensors'}", "source=both", "source.sound.device=mic16",
               "source@source.picture=url", f"source.picture.url={url}", "source.seconds=8", "sink=[console,jsonl]",
               f"sink.jsonl.path={out}", "sink.jsonl.posteriors=true"]  # fmt: skip
    try:
        done = subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, timeout=100)
    finally:
        sender.kill()
        sender.wait()
    err = done.stderr.decode()
    assert done.returncode == 0, err
    middle = re.search(r"pictures are (-?\d+) ms older than their sound in the median", err)
    assert middle and -10 <= int(middle[1]) <= 60, err
    rows = read_jsonl(out)
    assert [row["type"] for row in rows].count("gap") == 0 and len(rows) > 50
