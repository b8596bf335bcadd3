"""Live pictures: the grid under a virtual clock, cameras that stop, hang and come back, and gaps in a stream."""

import math
from contextlib import ExitStack
from fractions import Fraction
from functools import cache, partial
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from conftest import PICTURES, configured, free_port, lively_model, refused, run, static_server
from fake_cameras import broken, dying, hanging, refusing, standing
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture, on_grid
from pipeline.model.classifier import Classifier
from pipeline.sources import capture
from pipeline.sources.capture import Capture, LostError, VideoFrame
from pipeline.sources.live_video import HOLD_SECONDS, SNAP_TICKS, STAMPED_SNAP_TICKS, LiveVideo, VideoGrid
from pipeline.sources.source import Gap, Piece
from pipeline.sources.url import Url
from pipeline.sources.webcam import Webcam
from pipeline.streaming.stream import MAX_FILL_SECONDS, Stream

RATE, SIZE = 10, Picture(10, 8, 8)
SEEING = InputSpec(picture=SIZE)


def shot(number, captured, stamp=None, dropped=0):
    return VideoFrame(np.full((2, 2, 3), number % 256, np.uint8), captured, stamp, dropped=dropped)


def shown(grid, shots):
    """The number of the picture at each tick, None where the tick was missed."""
    found = []
    for one in shots:
        for ticks, what, missed in grid.add(one):
            found += [None] * missed + [int(what.image[0, 0, 0])] * ticks
    assert len(found) == grid.next
    return found


@settings(max_examples=40)
@given(rate=st.sampled_from([5, 10, 15, 20, 25, 30, 50, 60]), count=st.integers(2, 60), late=st.floats(0, 0.003))
def test_steady_camera_is_seen_as_a_file_would_be(rate, count, late):
    """Against the rule for files, with the same time stamps."""
    stamps = [Fraction(number, rate) for number in range(count)]
    live = shown(VideoGrid(RATE), [shot(n, 7.0 + float(s) + late, float(s)) for n, s in enumerate(stamps)])
    frames = ((s, s + Fraction(1, rate), n) for n, s in enumerate(stamps))
    offline = [n for n, times in on_grid(frames, RATE) for _ in range(times)]
    assert live == offline[: len(live)]
    assert len(live) >= len(offline) - math.ceil(RATE / rate)  # those still to come when the next picture is known


@settings(max_examples=40)
@given(data=st.data(), rate=st.sampled_from([10, 15, 25, 30]))
def test_camera_that_jitters_is_seen_within_the_snap(data, rate):
    times = [n / rate + data.draw(st.floats(-0.1, 0.1)) / rate for n in range(30)]
    grid, at = VideoGrid(RATE), []
    for number, moment in enumerate(times):
        for ticks, what, missed in grid.add(shot(number, 100 + moment)):
            assert not missed
            at += [int(what.image[0, 0, 0])] * ticks
    for tick, number in enumerate(at):
        place = (times[number] - times[0]) * RATE
        assert place <= tick + SNAP_TICKS
        later = (times[number + 1] - times[0]) * RATE if number + 1 < len(times) else math.inf
        assert later > tick - SNAP_TICKS  # no later picture was due


def test_answers_of_a_camera_at_the_models_rate_do_not_wait():
    grid = VideoGrid(30)
    for number in range(300):  # 29.97 pictures a second: on the grid, then beside it
        place = number * 1001 / 30000
        grid.add(shot(number, place, place))
        assert place * 30 - 1 - STAMPED_SNAP_TICKS <= grid.next - 1 <= place * 30 + 1


def test_after_a_jam_what_was_passed_over_is_missed_and_not_made_up():
    jammed = [shot(0, 0.0), shot(1, 0.1), shot(5, 0.5, dropped=3), shot(6, 0.6)]
    assert shown(VideoGrid(RATE), jammed) == [0, 1, None, None, None, 5, 6]


def test_time_that_passes_without_pictures():
    grid = VideoGrid(RATE)
    grid.add(shot(3, 50.0))
    assert grid.next == 1 and grid.seconds_to_tick(50.0) == pytest.approx((1 + SNAP_TICKS) / RATE)
    assert grid.pass_time(50.1) == []
    assert [(ticks, missed) for ticks, _, missed in grid.pass_time(50.0 + (2 + SNAP_TICKS) / RATE + 1e-9)] == [(2, 0)]
    grid.pass_time(59.0)
    assert grid.next <= 1 + HOLD_SECONDS * RATE, "it stands still for so long only"
    assert grid.seconds_to_tick(59.0) == math.inf


def test_time_stamps_that_jump_are_laid_where_they_come():
    stamps = [0.0, 0.1, 0.2, 4000.0, 4000.1, -3.0, -2.9]
    live = shown(VideoGrid(RATE), [shot(n, 9 + n / RATE, s) for n, s in enumerate(stamps)])
    assert live == list(range(7))


class Fake:
    """A capture that follows a plan in virtual time: ``(seconds, picture number or None for a loss)``."""

    what = "a plan"

    def __init__(self, plan, time):
        self.plan, self.time = plan, time

    def next(self, timeout):
        if not self.plan:
            self.time[0] += timeout
            return None
        at, number = self.plan[0]
        if at > self.time[0] + timeout:
            self.time[0] += timeout
            return None
        self.plan.pop(0)
        self.time[0] = max(self.time[0], at)
        if number is None:
            raise LostError("unplugged")
        return shot(number, at)

    def close(self):
        self.plan = None


class Video(LiveVideo):
    """Captures opened one after another in virtual time; a plan that is a number of seconds cannot be opened before."""

    def __init__(self, plans, **how):
        super().__init__(**how)
        self.name = "fake"
        self.now, self.plans, self.opened = [0.0], list(plans), []
        self.clock = lambda: self.now[0]

    def sleep(self, seconds):
        self.now[0] += seconds

    def open(self, again):
        self.opened.append(self.now[0])
        if isinstance(self.plans[0], float):
            if self.now[0] < self.plans[0]:
                raise LostError("not there")
            self.plans.pop(0)
        return Fake(list(self.plans.pop(0)), self.now)


def watched(plans, **how):
    """Pieces and gaps, with when they come."""
    video = Video(plans, **how)
    return ((video.now[0], item) for item in video.pieces(SEEING))


def steady(start, end):
    return [(start + n / RATE, n) for n in range(round((end - start) * RATE))]


def test_camera_that_freezes_is_lost_in_time_and_comes_back_with_the_length_of_the_gap(capsys):
    found = list(watched([steady(0.0, 3.0), 6.0, steady(8.0, 12.0)], timeout=2.0, seconds=12.0))
    gaps = [(now, item) for now, item in found if isinstance(item, Gap)]
    (lost, first), (_, second) = gaps
    assert lost <= 2.9 + 2.0 + 1e-6 and first == Gap(0, "no picture for 2 s", "reset")
    ticks = sum(item.ticks if isinstance(item, Gap) else len(item.x[0]) for _, item in found)
    assert second.why == "no picture for 2 s; it is back" and ticks in (120, 121)
    before = sum(len(item.x[0]) for now, item in found if isinstance(item, Piece) and now < lost)
    assert before + second.ticks == 80  # the first picture after it stands at 8 s
    assert "fake: a plan" in capsys.readouterr().err


def test_the_first_picture_may_take_longer_than_the_others():
    late = [(3.0 + n / RATE, n) for n in range(20)]
    found = [item for _, item in watched([list(late)], timeout=1.0, opening=5.0, seconds=4.5)]
    assert len(found) >= 15 and all(isinstance(item, Piece) for item in found)
    with pytest.raises(MediaError, match="no picture for 2 s"):  # it never gave any: no loss, but an error
        list(watched([list(late)], timeout=1.0, opening=2.0, seconds=4.5))


@pytest.mark.parametrize(("plans", "message"), [
    ([steady(0.0, 1.0), *[[(0.0, None)]] * 99], r"unplugged, and it did not come back in 20 s \(it delivers nothing\)"),
    ([[*steady(0.0, 1.0), (1.0, None)], math.inf], r"unplugged, and it did not come back in 20 s \(not there\)"),
])  # fmt: skip
def test_a_lost_source_is_tried_ever_less_often_and_given_up(plans, message):
    video, gaps = Video(plans, patience=20.0), []
    with pytest.raises(MediaError, match=message):
        gaps += [item for item in video.pieces(SEEING) if isinstance(item, Gap)]
    waits = np.diff(video.opened[1:]).round(6)
    assert waits[0] == 0.25 and all(b == min(2 * a, 5.0) for a, b in pairwise(waits))


def test_a_listener_that_is_busy_does_not_lose_its_camera():
    video = Video([steady(0.0, 20.0)], timeout=1.0, seconds=15.0)
    for number, item in enumerate(video.pieces(SEEING)):
        assert isinstance(item, Piece) or item.why == "behind"
        video.now[0] += 5.0 if number % 10 == 9 else 0.0


def test_box_keeps_the_newest_or_every_picture_that_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(capture, "MAX_QUEUE_BYTES", 36)  # bytes of three pictures
    for keep, kept, dropped in (("newest", [4], 4), ("every", [2, 3, 4], 2)):
        box = capture.FrameQueue(keep)
        for number in range(5):
            box.put(shot(number, 0.0))
        box.fail("gone")
        found = [box.take(0) for _ in kept]
        assert [int(one.image[0, 0, 0]) for one in found] == kept and found[0].dropped == dropped
        with pytest.raises(LostError, match="gone"):
            box.take(0)


def last_words(grabber, frozen=None):
    camera = Capture(grabber, (), "newest", frozen, 60.0)
    try:
        for _ in range(40):
            camera.next(0.5)
    except LostError as error:
        return str(error)
    finally:
        camera.close()


def test_a_process_that_hangs_dies_or_fails_is_told():
    camera = Capture(hanging, (), "newest", None, 60.0)
    assert camera.what == "a camera that hangs" and camera.next(30.0).image.shape == (2, 2, 3)
    assert camera.next(0.2) is None
    camera.close()  # whatever it is doing
    assert camera.child.exitcode == -9
    assert last_words(dying) == "the process that captures has died"
    assert last_words(standing, 0.3) == "the picture has been frozen for 0.3 s"
    assert last_words(broken) == "RuntimeError: ioctl"
    with pytest.raises(LostError, match="no"):
        Capture(refusing, (), "newest", None, 60.0)


@cache
def seeing_model(*overrides):
    small = ["extractor.width=8", "encoder.hidden=8", "encoder.stem=[{channels: 8}]"]
    return lively_model(*PICTURES, *small, *overrides, labels=["background", "a", "b"], times=3.0)


def moving(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def both(stream, images, then):
    """All posteriors that pictures and what follows bring."""
    stream.push(images)
    first = stream.posteriors
    then()
    return np.concatenate([first, stream.posteriors])


@settings(max_examples=10)
@given(before=st.integers(0, 12), gap=st.integers(0, 300), after=st.integers(1, 12), block=st.integers(1, 4),
       delay=st.sampled_from([0.0, 0.2]))  # fmt: skip
def test_after_a_reset_the_stream_is_a_new_one_at_a_later_time(before, gap, after, block, delay):
    model = seeing_model(f"head.delay={delay}")
    stream, whole, fresh = Stream(model, block), Stream(model, block), Stream(model, block)
    first = both(stream, moving(before), lambda: stream.gap(gap, "reset"))
    assert np.array_equal(first, both(whole, moving(before), whole.close)) and len(first) == before
    assert stream.ticks == stream.steps == before + gap
    second = both(stream, moving(after, 1), stream.close)
    assert np.array_equal(second, both(fresh, moving(after, 1), fresh.close))
    assert stream.first + len(stream.posteriors) == before + gap + after


@settings(max_examples=10)
@given(before=st.integers(1, 12), gap=st.integers(1, 40), after=st.integers(1, 12), block=st.integers(1, 4))
def test_hold_is_the_last_picture_again_and_zeros_are_black(before, gap, after, block):
    model = seeing_model()
    black = np.zeros((gap, 8, 8, 3), np.uint8)
    for how, between in (("hold", np.repeat(moving(before)[-1:], gap, axis=0)), ("zeros", black)):
        stream, other = Stream(model, block), Stream(model, block)
        first = both(stream, moving(before), partial(stream.gap, gap, how))
        found = np.concatenate([first, both(stream, moving(after, 1), stream.close)])
        together = np.concatenate([moving(before), between, moving(after, 1)])
        assert np.array_equal(found, both(other, together, other.close))


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_keep_holds_the_state_while_time_passes(delay):
    """As if the gap were only so long as the delay needs to answer what was before it."""
    model = seeing_model(f"head.delay={delay}")
    stream, other = Stream(model, 2), Stream(model, 2)
    held = np.repeat(moving(6)[-1:], model.delay, axis=0)
    first = both(stream, moving(6), lambda: stream.gap(100, "keep"))
    assert len(first) == 6 and stream.ticks == stream.steps == 106
    second = both(stream, moving(4, 1), stream.close)
    alone = both(other, np.concatenate([moving(6), held, moving(4, 1)]), other.close)
    assert np.array_equal(first, alone[:6]) and np.array_equal(second, alone[-4:])
    assert stream.first + len(stream.posteriors) == 110


def test_a_long_gap_is_computed_for_some_seconds_only():
    stream = Stream(seeing_model(), 1)
    stream.push(moving(3))
    stream.gap(10_000_000, "hold")
    assert len(stream.posteriors) == MAX_FILL_SECONDS * RATE and stream.ticks == 10_000_003
    stream.push(moving(2))
    assert (stream.first, len(stream.posteriors)) == (10_000_003, 2)


def test_open_events_end_at_a_reset_and_last_through_keep():
    model = seeing_model("decoder.threshold=0", "decoder.release=0", "decoder.minimum=0")
    for how in ("reset", "keep"):
        stream = Stream(model, 1)
        stream.push(moving(5))
        assert {event.label for event in stream.open} == {"a", "b"}
        ended = stream.gap(50, how)
        assert [(e.start, e.end) for e in ended] == ([(0, 5), (0, 5)] if how == "reset" else [])
        stream.push(moving(5))
        spans = {(e.start, e.end) for e in stream.close()}
        assert spans == {(55, 60)} if how == "reset" else {(0, 60)}


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["reset", "keep", "hold", "push"]), st.integers(0, 70)), max_size=12))
def test_time_stays_exact_through_any_gaps(plan):
    model = strided()
    stream, time_passed = Stream(model, 1), 0
    for how, ticks in plan:
        if how == "push":
            stream.push(np.zeros(ticks, np.float32))
        else:
            stream.gap(ticks, how)
        time_passed += ticks
        assert stream.ticks - stream.surplus == time_passed and 0 <= stream.surplus < model.grain
    stream.close()
    assert stream.steps == -(-stream.ticks // model.hop)


@cache
def strided():
    """A model of sound whose step is 32 samples."""
    config = configured("train", "extractor=waveform", "extractor.rate=1600", "extractor.window=0.005", "extractor.hop=0.005",
                        "encoder.hidden=4", "encoder.convolutions=[{channels: 4, kernel: 4, stride: 4}]")  # fmt: skip
    return Classifier(config, ["a", "b"]).eval()


def test_camera_that_stops_comes_back(tmp_path, capfd):
    """OpenCV takes a file for a camera, which ends soon, and begins anew when it is opened again."""
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    (tmp_path / "camera.mjpeg").write_bytes(b"".join(cv2.imencode(".jpg", image)[1].tobytes() for image in images))
    gaps, shapes = [], set()
    for item in Webcam(str(tmp_path / "camera.mjpeg"), seconds=60.0).pieces(SEEING):
        if isinstance(item, Piece):
            shapes |= {item.x[0].shape[1:]} if len(item.x[0]) else set()
        elif item.why != "behind":
            gaps.append(item)
        if gaps and gaps[-1].ticks:
            break
    assert gaps[0] == Gap(0, "the camera gives no more pictures", "reset") and len(gaps) == 2
    assert gaps[1].why == "the camera gives no more pictures; it is back" and shapes == {(8, 8, 3)}
    assert "64x48 pixels" in capfd.readouterr().err


def test_camera_that_is_not_there():
    with pytest.raises(ConfigError, match=r"source\.device: 97: there is no such camera.*source\.list=true"):
        list(Webcam(97).pieces(SEEING))
    with pytest.raises(ConfigError, match="source=webcam gives pictures, but the model takes sound alone"):
        list(Webcam(97).pieces(InputSpec(16000)))
    assert Webcam(list=True).list_devices().count("\n") < 10


def test_addresses_that_do_not_answer():
    for scheme in ("http", "rtsp"):
        with pytest.raises(MediaError, match=rf"{scheme}://127\.0\.0\.1:\d+/x: Connection refused.*source\.url"):
            list(Url(f"{scheme}://user:secret@127.0.0.1:{free_port()}/x").pieces(SEEING))
    with pytest.raises(MediaError, match=r"no answer within 0\.5 s"):
        list(Url(f"udp://127.0.0.1:{free_port()}", opening=0.5).pieces(SEEING))
    for wrong in ("file:///etc/passwd", "/etc/passwd", "concat:a|b", "rtsp"):
        with pytest.raises(ConfigError, match=r"source\.url: got .* for files choose source=file"):
            Url(wrong)


def test_infer_tells_of_devices_and_addresses_in_one_line(tmp_path):
    model = tmp_path / "model.safetensors"
    seeing_model().save(model)
    refused(
        "error: source.device: 98: there is no such",
        "infer.py",
        f"checkpoint={model}",
        "source=webcam",
        "source.device=98",
    )
    done = run("infer.py", f"checkpoint={model}", "source=url", f"source.url=http://127.0.0.1:{free_port()}/live")
    assert done.returncode == 1 and done.stderr.decode().count("\n") == 1 and b"Connection refused" in done.stderr
    refused("the model takes pictures", "infer.py", f"checkpoint={model}", "source=microphone")


def test_a_stream_over_http_is_read_as_a_file_is_and_opened_again(tmp_path):
    """A real server, real time stamps: the pictures are those of the file."""
    with av.open(str(tmp_path / "a.ts"), "w", format="mpegts") as out:
        track = out.add_stream("libx264", rate=RATE, options={"tune": "zerolatency"})
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for image in np.kron(moving(40), np.ones((1, 8, 8, 1), np.uint8)):
            out.mux(track.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(track.encode(None))
    with ExitStack() as served:
        origin, found, ends = served.enter_context(static_server(tmp_path)), [], []
        source = Url(f"{origin}/a.ts", keep="every", patience=0.1)
        with pytest.raises(MediaError, match=r"the stream has ended, and it did not come back"):
            for item in source.pieces(SEEING):
                if isinstance(item, Piece):
                    found += list(item.x[0])
                elif not item.ticks:
                    ends.append(len(found))
                if len(ends) == 2:  # it has ended, come back, and ended
                    served.close()
        assert 8 <= ends[0] < ends[1]
    (pictures,), _ = read_chunk(tmp_path / "a.ts", SEEING)
    at = next(index for index, picture in enumerate(pictures) if np.array_equal(found[0], picture))
    first = found[:8]  # the file comes faster than its time stamps: beyond JUMP they no longer count
    assert len(first) == 8 and np.array_equal(first, pictures[at : at + 8])
