"""What people see: pictures with answers beside them, in a window and in a file, and lines on the console."""

import os
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from conftest import ROOT, configured, lively_model, read_csv, read_jsonl, run, small_model, until

from infer import infer
from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.picture import Picture
from pipeline.media.video import read_frames
from pipeline.media.video_writer import VideoWriter
from pipeline.model.classifier import load
from pipeline.sinks.console import Console
from pipeline.sinks.display import Display, NoDisplayError
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import Frame, OpenEvents, Steps, StreamInfo, TimedEvent, TimedGap
from pipeline.sinks.jsonl import JSONLines
from pipeline.sinks.listen import listen
from pipeline.sinks.overlay import BAR, COLOURS, HEAD, MARGIN, MIN_HEIGHT, Scene, clock, draw, plan
from pipeline.sinks.screen import Screen
from pipeline.sinks.sink import Closed, Sink
from pipeline.sinks.video import Video
from pipeline.sources.source import Gap, Piece
from pipeline.sources.webcam import Webcam

LABELS = ["background", "Hände", "走る"]
SMALL = ["extractor=frames", "extractor.height=16", "extractor.width=16", "encoder=image_recurrent", "encoder.hidden=8",
         "head=mean", "head.window=0.4", "decoder.threshold=0.5", "decoder.release=0.45", "decoder.minimum=0"]  # fmt: skip


def lively(*overrides):
    """An untrained model of pictures whose posteriors move."""
    return lively_model(*SMALL, *overrides, labels=LABELS, times=1.8)


def scenery(count, height=48, width=64):
    """Dark and bright by turns, with waves."""
    t, y, x = np.arange(count)[:, None, None], *np.mgrid[:height, :width]
    light = np.where(t // 30 % 2, 200, 30)
    planes = light + 20 * np.sin(x / 5 + t / 5), light + 20 * np.sin(y / 5) + 0 * x, 255 - light + 0 * x
    return np.stack([plane.clip(0, 255).astype(np.uint8) for plane in planes], -1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    lively("head.delay=0.2").save(path)
    return path


def filmed(path, times):
    """A video of the scenery, with a picture at each of these times."""
    writer = VideoWriter(path)
    for seconds, image in zip(times, scenery(len(times))):
        writer.write(image, seconds)
    writer.close()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video whose pictures come irregularly: its path, and their times."""
    times = np.cumsum([0, *([1 / 30] * 20 + [1 / 15] * 20 + [0.2, 0.01] * 10)])
    return filmed(tmp_path_factory.mktemp("clip") / "a clip.mp4", times), times


def decoded(path):
    """Pictures and times of a video, as FFmpeg gives them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], np.array([frame.time for frame in frames])


def start(*overrides):
    """infer.py's function with settings from the command line, without the cost of a process."""
    settings = configured("infer", *overrides)
    del settings["plugins"]
    return infer(**settings)


def span(label, start, end):
    return TimedEvent(start, end, start, label, 0.9)


def scene(labels=LABELS, **given):
    scores = np.linspace(0.1, 0.9, len(labels), dtype=np.float32)
    ended = (span(labels[0], 1.0, 2.5), span(labels[-1], 3599.96, 3601.0))
    known = {"posteriors": scores, "running": (span(labels[-1], 3601.5, 9e9),), "ended": ended}
    return Scene(labels, 3602.0, **known | given)


SIZES = [(64, 64), (48, 64), (1, 1), (240, 320), (481, 641), (1080, 1920), (640, 360), (200, 1001), (3, 3000)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_canvas_is_large_enough_to_read_and_leaves_the_picture_alone(height, width):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    before, place = image.copy(), plan(height, width)
    canvas = draw(image, scene(running=()), place)
    assert canvas.shape == (place.height, place.width, 3) and not place.height % 2 and not place.width % 2
    assert place.em >= 16 and (place.height >= MIN_HEIGHT or place.width >= 1920)
    tall, broad = place.tall, place.broad
    shown = canvas[:tall, :broad]
    assert np.array_equal(image, before)
    if place.crisp:  # every pixel is a square
        assert np.array_equal(shown[:: tall // height, :: broad // width], image)
    elif (tall, broad) == (height, width):
        assert np.array_equal(shown, image)
    darker = draw(image, scene(notice="no picture for 2 s"), place)[:tall, :broad]
    assert darker.mean() < 0.5 * max(1, shown.mean())
    assert not np.array_equal(canvas, draw(image, scene(running=(), age=0.08), place))


def bar(canvas, place, row, colour):
    """Length of a bar, as a share of its room."""
    left, right = place.broad + round(MARGIN * place.em), place.width - round(MARGIN * place.em)
    line = canvas[round((MARGIN + HEAD + row * BAR + 1.3 + 0.17) * place.em), left:right].astype(int)
    return (np.abs(line - colour).max(-1) < 60).sum() / (right - left)


@pytest.mark.parametrize("size", [(48, 64), (1080, 1920)])
def test_bars_are_as_long_as_the_classes_are_likely(size):
    place = plan(*size)
    for scores in ([0.0, 1.0, 0.0], [0.3, 0.2, 0.5]):
        canvas = draw(np.zeros((*size, 3), np.uint8), scene(posteriors=np.array(scores, np.float32)), place)
        for row in (1, 2):
            assert bar(canvas, place, row, COLOURS[row]) == pytest.approx(scores[row], abs=0.01)
    many = [f"class {number}" for number in range(50)]
    canvas = draw(np.zeros((*size, 3), np.uint8), scene(many), place)
    for row in range(5):  # the likeliest on top
        colour = COLOURS[(49 - row) % len(COLOURS)]
        assert bar(canvas, place, row, colour) == pytest.approx(0.9 - row * 0.8 / 49, abs=0.01)


def test_letters_of_any_language_are_drawn_and_no_label_is_too_strange():
    place, image = plan(64, 64), np.zeros((64, 64, 3), np.uint8)
    letters = ["a", "ä", "日", "本", "ж", "Ω", "한"]
    found = {draw(image, scene([letter, "x"]), place).tobytes() for letter in letters}
    assert len(found) == len(letters)
    strange = ["", "\ud800 half a letter", "two\nlines", "\0", "m" * 3000, "👩‍👩‍👧", "مرحبا", "e\u0301\u0302", "\t|%s"]
    for label in strange:
        draw(image, scene([label, "x"], notice=label, age=3.0), place)
    draw(image, Scene(LABELS, 0.0), place)


def test_clock():
    found = [clock(seconds) for seconds in (0, 9.94, 59.96, 75.25, 3599.96, 36000)]
    assert found == ["0:00.0", "0:09.9", "1:00.0", "1:15.2", "1:00:00.0", "10:00:00.0"]


@pytest.mark.parametrize("settings", [[], ["block=0.7", "source.chunk=0.25"]])
def test_video_shows_each_picture_at_its_time_beside_the_answer_for_that_time(model, clip, settings, tmp_path, capsys):
    path, times = clip
    out, table = tmp_path / "out.mp4", tmp_path / "table.csv"
    given = [f"checkpoint={model}", f"source.path={path}", *settings]
    assert start(*given, "sink=video", f"sink.video.path={out}") == 0
    said = capsys.readouterr().out
    assert start(*given, "sink=csv", f"sink.csv.path={table}", "sink.csv.posteriors=true") == 0
    before, stamps = decoded(path)
    images, found = decoded(out)
    assert np.allclose(stamps, times, atol=1e-4) and np.array_equal(found, stamps)
    assert f"{len(times)} pictures in {out}" in said
    place = plan(48, 64)
    rows = np.genfromtxt(tmp_path / "table.posteriors.csv", delimiter=",", skip_header=1)
    assert rows[:, 2].std() > 0.1  # the answers move, so they tell the pictures apart
    height, width = place.tall // 48, place.broad // 64
    for seconds, image, source in zip(found, images, before):
        assert image.shape == (place.height, place.width, 3)
        shown = image[: place.tall, : place.broad]
        assert np.abs(shown[height // 2 :: height, width // 2 :: width].astype(int) - source)[2:-2, 2:-2].mean() < 4
        step = np.searchsorted(rows[:, 0], seconds + 1e-6)  # the first that has heard more than this
        for row in (1, 2):
            assert bar(image, place, row, COLOURS[row]) == pytest.approx(rows[step, 1 + row], abs=0.03), seconds
    events = [(float(row["start"]), float(row["end"])) for row in read_csv(table)]
    assert len(events) == said.count("–") > 0
    for begin, end in events:
        assert f"{begin:.2f} –" in said and f"{end:.2f} s" in said
        inside = [image for seconds, image in zip(found, images) if begin <= seconds < end]
        assert inside and all(np.abs(image[1, 1].astype(int) - COLOURS[1]).max() < 60 for image in inside)  # the frame


def watching(model, tmp_path, *settings, **environment):
    """infer.py at the pace of half a minute of video."""
    path = filmed(tmp_path / "long.mp4", np.arange(900) / 30)
    command = [sys.executable, str(ROOT / "infer.py"), f"checkpoint={model}", f"source.path={path}"]
    return subprocess.Popen([*command, "source.realtime=true", *settings], stdout=subprocess.PIPE, cwd=ROOT,
                            stderr=subprocess.PIPE, env=os.environ | environment)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_video_that_is_interrupted_can_be_played(model, how, code, tmp_path):
    out = tmp_path / "out.mp4"
    process = watching(model, tmp_path, "sink=video", f"sink.video.path={out}")
    until(lambda: process.poll() is not None or (out.exists() and out.stat().st_size > 20_000))
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and b"Traceback" not in err, err.decode()
    assert 5 < len(read_frames(out, Picture(10, 16, 16))[0]) < 290


def begun(path, labels=("a", "b"), rate=10):
    sink = Video(str(path))
    sink.start(StreamInfo("a camera", list(labels), rate, 1))
    return sink


def test_gaps_and_changes_of_size_in_a_video(tmp_path, capsys):
    light = np.full((120, 160, 3), 200, np.uint8)
    with begun(tmp_path / "out.mp4") as sink:
        for number in range(5):
            sink.write(Steps(number, np.array([[0.2, 0.8]], np.float32), 0.05))
            sink.write(Frame(number / 10, light))
        sink.write(TimedGap(0.5, 0, "no picture for 2 s", "reset"))
        sink.write(TimedGap(0.5, 3.0, "no picture for 2 s; it is back", "reset"))
        sink.write(Steps(35, np.array([[0.9, 0.1]] * 2, np.float32), 0.05))
        sink.write(Frame(3.5, np.full((120, 40, 3), 200, np.uint8)))
        sink.write(Frame(3.6, light))
        sink.write(TimedGap(3.7, 0.1, "behind", "keep"))
    images, times = decoded(tmp_path / "out.mp4")
    assert np.allclose(times, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 3.5, 3.6], atol=1e-4)
    place = plan(120, 160)
    light_at = [image[20, place.broad // 2].mean() for image in images]
    assert [value > 150 for value in light_at] == [True] * 5 + [False] + [True] * 2  # darkened while there is none
    assert images[6][20, 60].mean() < 40  # beside the narrow picture
    assert bar(images[4], place, 1, COLOURS[1]) == pytest.approx(0.8, abs=0.03)
    assert bar(images[6], place, 1, COLOURS[1]) == pytest.approx(0.1, abs=0.03)
    said = capsys.readouterr().out
    assert "0.50 s            no picture for 2 s (reset)\n" in said and "0.50 –    3.50 s  gap: no picture" in said
    assert "0.1 s were left out in 1 short gaps" in said and "median 50 ms" in said and "7 pictures" in said


def test_a_file_is_left_alone_until_there_is_a_picture(model, tmp_path):
    """The source cannot be read."""
    kept = tmp_path / "out.mp4"
    kept.write_bytes(b"an hour's work")
    given = [f"checkpoint={model}", f"source.path={tmp_path / 'none.mp4'}", "sink=video"]
    for out in (kept, tmp_path / "new.mp4"):
        with pytest.raises(MediaError, match="not_found"):
            start(*given, f"sink.video.path={out}")
    assert kept.read_bytes() == b"an hour's work" and list(tmp_path.iterdir()) == [kept]


def test_a_file_that_stands_for_a_camera_is_not_overwritten(clip):
    with pytest.raises(ConfigError, match=r"sink\.video\.path: .* is a file that is read"):
        Fanout({"video": Video(str(clip[0]))}).check_overwrites(Webcam(str(clip[0])).reads)


def dark(tenths):
    return Frame(tenths / 10, np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize(("times", "said"), [([], "no pictures"), ([0, 1, 1, 0.5, 2], "3 pictures in")])
def test_only_pictures_that_are_written_are_counted(tmp_path, capsys, times, said):
    with begun(tmp_path / "out.mp4") as sink:
        sink.write(Steps(0, np.zeros((3, 2), np.float32)))
        for tenths in times:
            sink.write(dark(tenths))
    assert said in "".join(capsys.readouterr()) and (tmp_path / "out.mp4").exists() == bool(times)
    assert not times or len(decoded(tmp_path / "out.mp4")[0]) == 3


def test_pictures_wait_for_late_answers_but_not_for_ever(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.sinks.video.WAITING_BYTES", 10 * 16 * 16 * 3)
    with begun(tmp_path / "out.mp4") as sink:
        for tenths in range(15):
            sink.write(dark(tenths))
            assert len(sink.waiting) == min(tenths + 1, 10)
            assert ("smaller block" in capsys.readouterr().err) == (tenths == 10)
        sink.write(Steps(0, np.zeros((15, 2), np.float32)))
        sink.write(dark(15))
        assert len(sink.waiting) == 1
    assert len(decoded(tmp_path / "out.mp4")[0]) == 16


def test_a_full_disk_is_told_as_such(tmp_path):
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), begun(tmp_path / "full.mp4") as sink:
        sink.write(dark(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sink=video", "sink.video.path=out.avi"], "ends in .mp4"),
        (["sink=video", "sink.video.path={clip}"], "is a file that is read"),
        (["sink=video", "sink.video.path={tmp}/o.mp4", "source=files", "source.paths={clip}"], "source=files"),
        (["sink=[csv,labels,webhook]", "sink.csv.path={tmp}/o", "sink.labels.path={tmp}/l", "source=files",
          "sink.webhook.url=http://127.0.0.1:9", "source.paths={clip}"], "labels, webhook takes one stream"),
        (["sink=window", "source=files", "source.paths={clip}"], "source=files"),
        (["sink=window"], "there is no display"),
    ],
)  # fmt: skip
def test_wrong_use(model, clip, arguments, message, tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    given = [argument.format(clip=f"'{clip[0]}'", tmp=tmp_path) for argument in arguments]
    files = [] if "source=files" in given else [f"source.path={clip[0]}"]
    size = clip[0].stat().st_size
    with pytest.raises(ConfigError, match=message):
        start(f"checkpoint={model}", *given, *files)
    assert clip[0].stat().st_size == size and not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["video.path", "parquet.path", "sqlite.path", "webhook.url", "mqtt.host"])
def test_what_must_be_set(key):
    done = run("infer.py", "checkpoint=none", f"sink={key.partition('.')[0]}", "source.path=x.wav")
    assert done.returncode == 2 and f"sink.{key}: is not set".encode() in done.stderr


@pytest.mark.parametrize("sink", [["sink=window"], ["sink=video", "sink.video.path=/proc/no/out.mp4"]])
def test_pictures_that_cannot_be_are_told(model, clip, sink, tmp_path):
    small_model().save(tmp_path / "sound.safetensors")
    with pytest.raises(ConfigError, match="takes sound alone"):
        start(f"checkpoint={tmp_path / 'sound.safetensors'}", "source.path=x.wav", *sink)
    if "sink=video" in sink:
        with pytest.raises(OSError) as caught:
            start(f"checkpoint={model}", f"source.path={clip[0]}", *sink)
        assert caught.value.filename in sink[1] and caught.value.strerror


def test_a_display_that_does_not_answer_ends_in_one_line(model, clip, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4321")
    done = run("infer.py", f"checkpoint={model}", f"source.path={clip[0]}", "sink=window")
    text = done.stderr.decode()
    assert done.returncode == 2 and "sink=window: no window can be opened (" in text and ":4321" in text
    assert len(text.splitlines()) == 1 and "sink=video" in text


class Told:
    """A source that says what it was told to."""

    name = "told"

    def __init__(self, *items):
        self.items = items

    def pieces(self, spec, seen=False):
        yield from self.items


def piece(count, first=0, seen=False):
    images = np.stack([Picture(10, 16, 16).fit(image) for image in scenery(first + count)[first:]])
    shown = tuple(((first + n) / 10, image) for n, image in enumerate(images))
    return Piece((images,), time.monotonic(), shown if seen else ())


def test_gaps_are_told_with_the_age_of_answers(model, tmp_path, capsys):
    source = Told(piece(12), Gap(0, "unplugged", "reset"), Gap(25, "unplugged; it is back", "reset"), piece(5),
                  Gap(2, "behind", "keep"), piece(5), Gap(3, "behind", "keep"), piece(1))  # fmt: skip
    with Fanout({"jsonl": JSONLines(str(tmp_path / "out.jsonl"), posteriors=True), "console": Console()}) as sink:
        assert listen(load(model).for_streaming(), source, sink, 0.1)
    rows = read_jsonl(tmp_path / "out.jsonl")
    gaps = [(row["start"], row["length"], row["why"], row["how"]) for row in rows if row["type"] == "gap"]
    assert gaps == [(1.2, 0.0, "unplugged", "reset"), (1.2, 2.5, "unplugged; it is back", "reset"),
                    (4.2, 0.2, "behind", "keep"), (4.9, 0.3, "behind", "keep")]  # fmt: skip
    times = [row["time"] for row in rows if row["type"] == "step"]
    assert times[:12] == [round(0.1 * n, 1) for n in range(1, 13)] and times[12] == 3.8
    said = capsys.readouterr().out
    assert "    1.20 s            unplugged (reset)\n" in said
    assert "    1.20 –    3.70 s  gap: unplugged; it is back (reset)\n" in said
    assert "behind" not in said and "0.5 s were left out in 2 short gaps\n" in said
    assert "age of answers: median " in said


class Shut(Sink):
    """Is closed at the third picture."""

    pictures = True

    def __init__(self):
        self.seen, self.times = 0, []

    def write(self, item):
        if isinstance(item, Frame):
            self.seen += 1
            if self.seen == 3:
                raise Closed
        elif isinstance(item, Steps):
            self.times += [row["time"] for row in item.rows(self.stream)]


def test_a_closed_sink_ends_the_stream_with_all_answers(model):
    sink, source = Shut(), Told(piece(2, 0, True), piece(2, 2, True), piece(9, 4, True))
    assert listen(load(model).for_streaming(), source, sink, 0.1) is True
    assert sink.seen == 3 and sink.times == [0.1, 0.2, 0.3, 0.4]


def test_events_between_pictures_are_shown_by_their_times():
    sink = Screen()
    sink.start(StreamInfo("x", ["a", "b"], 10, 1))
    sink.write(Steps(0, np.tile(np.array([[0.1, 0.9]], np.float32), (10, 1))))
    sink.write(span("a", 0.2, 0.5))
    sink.write(OpenEvents((span("b", 0.7, 1.0),)))
    found = [sink.scene(tick / 10) for tick in range(10)]
    assert [[span.label for span in one.running] for one in found] == [[]] * 2 + [["a"]] * 3 + [[]] * 2 + [["b"]] * 3
    assert [len(one.ended) for one in found] == [0] * 5 + [1] * 5


@pytest.fixture
def screen():
    """An X server without a screen, as DISPLAY."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        pytest.skip("needs Xvfb and xdotool (Debian: apt install xvfb xdotool)")
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "900x600x24"], pass_fds=[write],
                              stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(write)
    with os.fdopen(read) as answer:
        display = f":{answer.readline().strip()}"
    yield display, server
    server.kill()
    server.wait()


def xdotool(display, *arguments):
    command = ["xdotool", *arguments]
    return subprocess.run(command, env=os.environ | {"DISPLAY": display}, capture_output=True, text=True).stdout.split()


def test_window_shows_answers_until_q_is_pressed(model, screen, tmp_path):
    process = watching(model, tmp_path, "sink=window", DISPLAY=screen[0])
    assert process.stdout.readline().startswith(b"watching")
    until(lambda: "Hände".encode() in process.stdout.readline())
    windows = xdotool(screen[0], "search", "--name", "Rivulet")
    assert windows and process.poll() is None
    xdotool(screen[0], "key", "--window", windows[0], "q")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and not err, err.decode()
    assert b"age of answers" in out and not xdotool(screen[0], "search", "--name", "Rivulet")


def test_a_window_tells_whether_it_was_closed_or_broke_down(screen, monkeypatch):
    monkeypatch.setenv("DISPLAY", screen[0])
    first, second = Display("first", 300), Display("second", 300)
    image = np.zeros((48, 64, 3), np.uint8)
    first.show(image)
    second.show(image)
    assert not first.closed and not second.closed
    xdotool(screen[0], "key", "--window", xdotool(screen[0], "search", "--name", "first")[0], "Escape")
    until(lambda: first.closed)
    assert not first.broken and not second.closed
    first.show(image)  # harmless
    screen[1].kill()
    until(lambda: second.closed)
    assert second.broken
    for display in (first, second):
        display.close()
    with pytest.raises(NoDisplayError, match="no window can be opened"):
        Display("third", 300)
