"""sink=clips: the sound and the pictures around each event, to the sample, and nothing else is ever removed."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from conftest import ROOT, configured, lively_model, no_file_above, ran, read_jsonl, small_model, tone_clip, until
from played import LIVELY, NOON, RATE, Shared, event, files, play

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.core.text import NAME_BYTES, slug
from pipeline.sinks.clips import Clips
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.items import Clock, Sound, StreamInfo, TimedGap
from pipeline.sinks.listen import listen
from pipeline.sinks.sink import Sink
from pipeline.sources.source import Gap, Piece, Source

HOSTILE = [
    "../../etc/passwd", "/abs", "a\0b", "", ".", "..", "-rf", "con", "a/b\\c:d", "\ud800", "x" * 500, "走る" * 90,
    "two\nlines",
]  # fmt: skip


def heard(path):
    """The numbers of the samples of a clip."""
    return soundfile.read(path, dtype="int16")[0]


def begun(name="a stream", **settings):
    sink = Clips(**settings)
    shared = Shared()
    target = Fanout({"shared": shared, "clips": sink})
    target.setup(["dog", "cat"], [])
    target.start(StreamInfo(name, ["dog", "cat"], RATE, 80))
    return target, sink, shared


def listed(folder):
    return [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]


# What a clip holds


@pytest.mark.parametrize("format", ["flac", "wav"])
@pytest.mark.parametrize("block", [0.1, 0.02, 1.5])
def test_a_clip_is_the_event_with_the_seconds_around_it_to_the_sample(tmp_path, format, block):
    events = [event("dog", 1.2, 1.5), event("cat", 9.0, 10.25, 0.8), event("dog", 29.5, 30.0, 1.0)]
    target, _, shared = begun(path=str(tmp_path), format=format)
    with target:
        play(target, 30, events, block=block)
    spans = [(0.0, 2.5), (7.0, 11.25), (27.5, 30.0)]
    assert [clip.label for clip in shared.clips] == ["dog", "cat", "dog"]
    assert [(clip.first, clip.last) for clip in shared.clips] == spans
    assert [clip.start for clip in shared.clips] == [1.2, 9.0, 29.5]
    for clip, (first, last) in zip(shared.clips, spans):
        assert soundfile.info(clip.path).samplerate == RATE
        assert np.array_equal(heard(clip.path), np.arange(round(first * RATE), round(last * RATE)) % 30000)
    origin = r"a_stream-[0-9a-f]{6}-\d{8}T\d{6}\.\d{3}Z_"
    for name, end in zip(files(tmp_path), ("00001.200s_dog_0.90", "00009.000s_cat_0.80", "00029.500s_dog_1.00")):
        assert re.fullmatch(origin + re.escape(f"{end}.{format}"), name)
    rows = listed(tmp_path)
    assert [(row["label"], row["start"], row["end"], row["score"], row["time"]) for row in rows] == [
        ("dog", 1.2, 1.5, 0.9, None), ("cat", 9.0, 10.25, 0.8, None), ("dog", 29.5, 30.0, 1.0, None)
    ]  # fmt: skip


def test_clips_of_a_live_source_are_named_by_the_clock_on_the_wall(tmp_path):
    target, _, _ = begun(path=str(tmp_path))
    with target:
        play(target, 8, [event("dog", 4.0, 4.5)], live=NOON)
    assert files(tmp_path) == ["20261130T120004.250Z_dog_0.90.flac"]
    assert listed(tmp_path)[0]["time"] == "2026-11-30T12:00:04.250Z"


def test_events_that_overlap_have_a_clip_each(tmp_path):
    target, _, shared = begun(path=str(tmp_path))
    with target:
        play(target, 20, [event("dog", 5.0, 9.0), event("cat", 6.0, 7.0), event("dog", 9.5, 9.6)])
    assert sorted((clip.label, clip.first, clip.last) for clip in shared.clips) == [
        ("cat", 4.0, 8.0), ("dog", 3.0, 10.0), ("dog", 7.5, 10.6)
    ]  # fmt: skip
    for clip in shared.clips:
        assert heard(clip.path)[0] == round(clip.first * RATE) % 30000


def test_of_a_long_event_the_beginning_is_written_while_it_goes_on(tmp_path):
    target, sink, shared = begun(path=str(tmp_path), longest=5.0)
    long = event("dog", 10.0, 300.0)
    with target:
        play(target, 17, [long], live=NOON)
        until(lambda: files(tmp_path))
        play(target, 310, [long], since=17, live=NOON)
        assert not sink.begun
    (clip,) = shared.clips
    assert (clip.first, clip.last, clip.start) == (8.0, 16.0, 10.0)
    assert np.array_equal(heard(clip.path), np.arange(8 * RATE, 16 * RATE) % 30000)


def test_memory_is_bounded_by_seconds(tmp_path):
    target, sink, _ = begun(path=str(tmp_path), before=3.0, after=2.0, longest=5.0)
    with target:
        play(target, 200, [event("dog", 50.0, 180.0)], shots=True, live=NOON)
        assert sum(len(piece) for _, piece in sink.sound) <= 20.2 * RATE and len(sink.shots) <= 202


def test_a_lost_device_ends_a_clip_at_once_and_a_short_gap_is_silent(tmp_path):
    target, _, shared = begun(path=str(tmp_path))
    with target:
        play(target, 10, [event("dog", 9.0, 9.5)], live=NOON)
        target.write(TimedGap(10.0, 0.0, "unplugged", "reset"))
        target.flush()
        until(lambda: files(tmp_path))  # not only when it comes back
        target.write(TimedGap(10.0, 100.0, "it is back", "reset"))
        play(target, 115, [event("cat", 112.0, 113.0)], since=110, live=NOON)
        target.write(TimedGap(115.0, 0.5, "behind", "keep"))
        play(target, 120, [event("cat", 114.0, 116.0)], since=115.5, live=NOON)
    assert [(clip.first, clip.last) for clip in shared.clips] == [(7.0, 10.0), (110.0, 114.0), (112.0, 117.0)]
    whole = np.arange(112 * RATE, 117 * RATE) % 30000
    whole[3 * RATE : round(3.5 * RATE)] = 0
    assert np.array_equal(heard(shared.clips[2].path), whole)


def test_a_source_may_use_its_array_again(tmp_path):
    target, _, shared = begun(path=str(tmp_path))
    buffer = np.empty(RATE // 10, np.float32)
    with target:
        for number in range(50):
            buffer[:] = number / 100
            target.write(Clock((number + 1) / 10, NOON))
            target.write(Sound(buffer))
        target.write(event("dog", 2.0, 3.0))
    assert np.array_equal(heard(shared.clips[0].path)[:: RATE // 10], np.round(np.arange(40) / 100 * 32768))


def test_samples_that_are_none_make_a_clip_all_the_same(tmp_path):
    target, _, shared = begun(path=str(tmp_path))
    with target:
        target.write(Clock(1.0, NOON))
        target.write(Sound(np.array([np.nan, np.inf, -np.inf, 7.0] * (RATE // 4), np.float32)))
        target.write(event("dog", 0.0, 1.0))
    assert heard(shared.clips[0].path)[:4].tolist() == [0, 32767, -32768, 32767]


# Pictures


@pytest.mark.parametrize(("height", "shape"), [(480, (48, 64)), (24, (24, 32))])
def test_pictures_stand_at_their_times(tmp_path, height, shape):
    target, _, shared = begun(path=str(tmp_path), height=height, before=1.0)
    with target:
        play(target, 20, [event("dog", 5.0, 6.0)], shots=True, live=NOON)
    sound, pictures = shared.clips
    assert files(tmp_path) == [f"20261130T120005.250Z_dog_0.90.{ending}" for ending in ("flac", "mp4")]
    assert (pictures.first, round(pictures.last, 3), sound.first, sound.last) == (4.0, 6.9, 4.0, 7.0)
    with av.open(str(pictures.path)) as container:
        frames = list(container.decode(video=0))
    assert [round(frame.time, 3) for frame in frames] == [round(n / 10, 3) for n in range(30)]
    images = [frame.to_ndarray(format="rgb24") for frame in frames]
    assert images[0].shape == (*shape, 3)
    assert np.allclose([image.mean() for image in images], np.arange(40, 70) + 20, atol=2)


# Names


def test_names_are_safe_and_tell_labels_apart(tmp_path):
    target, _, shared = begun(path=str(tmp_path / "clips"))
    with target:
        play(target, 10, [event(label, 5.0, 6.0) for label in HOSTILE])
    assert len(set(files(tmp_path / "clips"))) == len(HOSTILE) == len(shared.clips)
    assert os.listdir(tmp_path) == ["clips"]
    for name in files(tmp_path / "clips"):
        assert re.fullmatch(r"[\w.-]+_00005\.000s_[\w-]*_0\.90\.flac", name) and len(name.encode()) < 200


@pytest.mark.parametrize(
    ("text", "name"),
    [("dog", "dog"), ("Hände", "Hände"), ("कुत्ता", "कुत्ता"), ("a_b-1", "a_b-1"), ("Ha\u0308nde", "Hände"),
     ("a b", "a_b-"), ("", "-"), ("x" * 61, "x" * NAME_BYTES + "-"), ("走" * 21, "走" * 20 + "-")],
)  # fmt: skip
def test_slugs(text, name):
    assert re.fullmatch(re.escape(name) + ("[0-9a-f]{6}" if name.endswith("-") else ""), slug(text))
    assert slug(text, only_ascii=True).isascii() and slug(text, "other") != slug(text, "another")


def test_recordings_of_one_name_are_told_apart(tmp_path):
    for folder in "ab":
        path = tone_clip(tmp_path / folder / "street.wav", 300)
        for _ in range(2):  # the second run writes the same files
            target, _, _ = begun(str(path), path=str(tmp_path / "clips"))
            with target:
                play(target, 10, [event("dog", 5.0, 6.0)])
    assert len(files(tmp_path / "clips")) == 2 and all(name.startswith("street-") for name in files(tmp_path / "clips"))


# What is kept


def foreign(folder):
    """What somebody else has put there: old, large, with names like ours."""
    folder.mkdir(exist_ok=True)
    names = ["old.wav", "20200101T000000.000Z_dog_0.90.flac", "notes.txt", "x.flac.part"]
    for name in names:
        (folder / name).write_bytes(bytes(10**6))
        os.utime(folder / name, (0, 0))
    (folder / "sub").mkdir()
    (folder / "sub" / "20200101T000000.000Z_dog_0.90.flac").write_bytes(b"x")
    return sorted([*names, "sub"])


def test_the_oldest_clips_go_when_there_are_too_many_and_nothing_else_does(tmp_path):
    others = foreign(tmp_path)
    settings = {"path": str(tmp_path), "keep": "200kB", "format": "wav", "before": 1.0}  # 3 s are 48,044 bytes
    events = [event("dog", start, start + 1) for start in range(5, 60, 5)]
    target, _, shared = begun(**settings)
    with target:
        play(target, 60, events)
    assert sorted(tmp_path.glob("a_stream*.wav")) == [clip.path for clip in shared.clips[-4:]]
    assert len(shared.clips) == 11
    target, _, more = begun(**settings)  # another run goes on with the same list
    with target:
        play(target, 10, events[:1], live=NOON)
    left = {clip.path.name for clip in [*shared.clips[-3:], *more.clips]}
    assert set(files(tmp_path)) - set(others) == left and set(others) <= set(files(tmp_path))
    assert {row["path"] for row in listed(tmp_path)} >= left


def test_clips_go_when_they_are_too_old(tmp_path, monkeypatch):
    others = foreign(tmp_path)
    target, _, shared = begun(path=str(tmp_path), keep=["2GB", "30d"])
    with target:
        play(target, 20, [event("dog", 5.0, 6.0), event("cat", 10.0, 11.0)])
    old = time.time() - 31 * 86400
    os.utime(shared.clips[0].path, (old, old))
    monkeypatch.setattr("pipeline.sinks.clips.PRUNE_SECONDS", 0.0)
    for keep, left in (("40d", 2), (None, 2), ("30d", 1)):
        target, sink, _ = begun(path=str(tmp_path), keep=keep)
        with target:
            assert len(sink.folder.found) == left
    target, sink, _ = begun(path=str(tmp_path), keep="30d")
    with target:
        os.utime(shared.clips[1].path, (old, old))
        sink.folder.found[shared.clips[1].path.name] = (1, old)
        target.flush()  # without any new clip
        assert files(tmp_path) == others


def test_the_list_is_not_trusted_with_paths(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "precious.wav").write_bytes(b"x")
    (tmp_path / "clips" / "link.wav").symlink_to(tmp_path / "precious.wav")
    rows = ["../precious.wav", str(tmp_path / "precious.wav"), "link.wav", ".", "..", "clips.jsonl", 5, ["x"]]
    torn = '{"path": "../precious.wav'
    text = "".join(json.dumps({"path": row}) + "\n" for row in rows) + "[]\nnull\n\xff\n" + torn
    (tmp_path / "clips" / "clips.jsonl").write_bytes(text.encode("latin-1"))
    target, _, shared = begun(path=str(tmp_path / "clips"), keep="1kB")
    with target:
        play(target, 20, [event("dog", 5.0, 6.0), event("dog", 10.0, 11.0)])
    assert (tmp_path / "precious.wav").read_bytes() == b"x"
    assert files(tmp_path / "clips") == sorted(["link.wav", shared.clips[1].path.name])


@pytest.mark.parametrize("keep", ["2", "2 apples", "-2GB", "0GB", "GB", "", ["2GB", "x"]])
def test_limits_that_make_no_sense(tmp_path, keep):
    with pytest.raises(ConfigError, match=r"sink.clips.keep: got '.*'; expected a size \(500MB, 2GB\), an age"):
        Clips(str(tmp_path), keep=keep)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with begun(path=str(tmp_path))[0], pytest.raises(OSError, match="another run"):
        begun(path=str(tmp_path))
    with begun(path=str(tmp_path))[0]:
        pass


# What goes wrong


def test_a_full_disk_is_told_at_once_and_the_stream_goes_on(tmp_path, capsys):
    target, _, shared = begun(path=str(tmp_path), format="wav")
    with target:
        with no_file_above(20_000):
            play(target, 20, [event("dog", 5.0, 6.0)])
            until(lambda: "File too large" in capsys.readouterr().err)
        play(target, 40, [event("cat", 30.0, 31.0)], since=20)
    assert [clip.label for clip in shared.clips] == ["cat"] and len(files(tmp_path)) == 1
    assert "sink=clips: 1 of 2 clips are missing (the last: [Errno 27] File too large" in capsys.readouterr().err


def test_a_slow_disk_loses_clips_of_live_sources_only_and_counts_them(tmp_path, capsys, monkeypatch):
    events = [event("dog", start, start + 0.5) for start in range(5, 50)]
    slow = "pipeline.sinks.clips.write_sound"
    monkeypatch.setattr(slow, lambda *arguments: time.sleep(0.05))
    target, _, shared = begun(path=str(tmp_path / "file"), queue=2)
    with target:
        play(target, 60, events)
    assert len(shared.clips) == 45 and not capsys.readouterr().err
    target, _, shared = begun(path=str(tmp_path / "live"), queue=2)
    goes_on = threading.Event()
    monkeypatch.setattr(slow, lambda *arguments: goes_on.wait(60))
    with target:
        play(target, 60, events, live=NOON)  # does not wait for the disk
        goes_on.set()
    missing = 45 - len(shared.clips)
    told = f"{missing} of 45 clips are missing (the last: the queue was full)"
    assert missing > 5 and told in capsys.readouterr().err


KILLED = """
import sys; sys.path[:0] = [{root!r}, {tests!r}]
from played import RATE, event, play
from pipeline.sinks.clips import Clips
from pipeline.sinks.items import StreamInfo
target = Clips({path!r}, format="wav", keep="5MB")
target.start(StreamInfo("a stream", ["dog"], RATE, 80))
play(target, 10_000, [event("dog", start / 10, start / 10 + 1) for start in range(50, 90_000)], shots=True)
"""


def test_after_a_kill_every_clip_is_whole_and_the_next_run_clears_up(tmp_path):
    code = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"), path=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: len(os.listdir(tmp_path)) > 8, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "a.part").write_bytes(b"mine")
    for path in tmp_path.glob("*.wav"):
        assert len(heard(path)) >= 3 * RATE
    for path in tmp_path.glob("*.mp4"):
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) >= 20
    assert {path.name for path in tmp_path.glob("*[4v]")} <= {row["path"] for row in listed(tmp_path)}
    with begun(path=str(tmp_path))[0]:
        pass
    assert [path.name for path in tmp_path.glob("*.part")] == ["a.part"]
    assert {row["path"] for row in listed(tmp_path)} == {path.name for path in tmp_path.glob("*[4v]")}


# With real sources


def both_sinks(folder):
    return ["sink=[clips,jsonl]", f"sink.clips.path={folder}/clips", "sink.clips.before=0.3", "sink.clips.after=0.2",
            f"sink.jsonl.path={folder}/events.jsonl"]  # fmt: skip


def check_clips(folder, events, samples):
    assert len(events) >= 3
    rows = listed(folder)
    told, wanted = (
        sorted((row["label"], row["start"], row["end"], row["score"]) for row in one) for one in (rows, events)
    )
    assert told == wanted
    for row in rows:
        first, last = max(0, row["start"] - 0.3), min(len(samples) / 16000, row["end"] + 0.2)
        expected = samples[round(first * 16000) : round(last * 16000)]
        assert np.abs(soundfile.read(folder / row["path"])[0] - expected).max() < 2 / 32768


def test_a_file(pulses, tmp_path):
    out = tmp_path / "events.jsonl"
    ran("infer.py", f"checkpoint={pulses}", f"source.path={pulses}/street.wav", *LIVELY, *both_sinks(tmp_path))
    check_clips(tmp_path / "clips", read_jsonl(out), soundfile.read(pulses / "street.wav")[0])
    assert all(name.startswith("street-") for name in files(tmp_path / "clips"))


def test_standard_input(pulses, tmp_path, monkeypatch):
    out, samples = tmp_path / "events.jsonl", soundfile.read(pulses / "street.wav", dtype="int16")[0]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(samples.tobytes()))))
    ran("infer.py", f"checkpoint={pulses}", "source=stdin", "source.rate=16000", *LIVELY, *both_sinks(tmp_path))
    check_clips(tmp_path / "clips", read_jsonl(out), samples / 32768)
    assert all(name.startswith("standard_input-") for name in files(tmp_path / "clips"))


class Live(Source):
    """Chunks as a device gives them."""

    name, live = "a device", True

    def __init__(self, chunks, shots=()):
        self.chunks, self.shots = chunks, shots

    def pieces(self, spec, seen=False):
        assert seen == (spec.picture is not None)
        for number, chunk in enumerate(self.chunks):
            if isinstance(chunk, Gap):
                yield chunk
                continue
            yield Piece((chunk,), time.monotonic(), self.shots[number : number + 1] if seen else ())


def test_a_microphone(pulses, tmp_path):
    model = small_model("head.live=0.1", *LIVELY).for_streaming()
    samples = soundfile.read(pulses / "street.wav", dtype="float32")[0]
    sink = Clips(str(tmp_path), before=0.3, after=0.2)
    now = time.time()
    with Fanout({"clips": sink}) as target:
        listen(model, Live(np.array_split(samples, 37)), target, 0.1)
    assert len(listed(tmp_path)) >= 3
    for name in files(tmp_path):
        assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z_[a-z]+_[01]\.\d\d\.flac", name)
    for row in listed(tmp_path):
        assert abs(datetime.fromisoformat(row["time"]).timestamp() - now) < 30


@pytest.mark.parametrize("how", ["reset", "keep"])
def test_the_place_in_a_stream_is_exact_after_any_gaps(how):
    """Also where the model leaves samples out, so that its steps stay multiples of its hop."""

    class Places(Sink):
        def __init__(self):
            self.found = []

        def write(self, item):
            if isinstance(item, Clock):
                self.found.append((round(item.seconds * 16000), round(item.time - time.time())))

    sink, sizes = Places(), [1000, 77, 161, 500, 1, 3000, 901]
    chunks = [Gap(n, "behind", how) if k % 2 else np.zeros(n, np.float32) for k, n in enumerate(sizes)]
    listen(small_model().for_streaming(), Live(chunks), sink, 0.1)
    assert sink.found == [(int(place), 0) for place in np.cumsum(sizes)[::2]]


def test_a_camera(tmp_path):
    settings = ["extractor=frames", "extractor.height=16", "extractor.width=16", "encoder=image_recurrent",
                "encoder.hidden=8", "head=mean", "head.window=0.4", "decoder.threshold=0.5", "decoder.release=0.45",
                "decoder.minimum=0"]  # fmt: skip
    model = lively_model(*settings, labels="abc", times=1.8)
    images = [np.full((48, 64, 3), 200 if number // 10 % 2 else 30, np.uint8) for number in range(60)]
    rate = model.spec.rate
    small = [np.ascontiguousarray(image[None, :16, :16]) for image in images]
    shots = [(number / rate, image) for number, image in enumerate(images)]
    with Fanout({"clips": Clips(str(tmp_path))}) as target:
        listen(model, Live(small, shots), target, 0.1)
    assert files(tmp_path) and all(name.endswith(".mp4") for name in files(tmp_path))
    assert all(heard_pictures(tmp_path / name) > 0 for name in files(tmp_path))


def heard_pictures(path):
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


def test_settings(tmp_path):
    given = ["sink=clips", f"sink.clips.path={tmp_path}/new", "sink.clips.keep=[2GB,30d]"]
    sink = build(configured("infer", *given)["sink"]["clips"], Sink, at="sink.clips")
    assert (sink.folder.bytes, sink.folder.seconds) == (2e9, 30 * 86400) and os.listdir(tmp_path / "new") == []
    with pytest.raises(ConfigError, match="clips takes one stream"):
        Fanout({"clips": sink}).check_files()


def test_a_list_that_was_torn_goes_on_also_on_a_full_disk(tmp_path):
    target, _, _ = begun(path=str(tmp_path))
    with target:
        play(target, 20, [event("dog", 5.0, 6.0), event("cat", 10.0, 11.0)])
    before = listed(tmp_path)
    with open(tmp_path / "clips.jsonl", "a") as file:
        file.write('{"path": "torn by a powe')
    with no_file_above(100):
        target, sink, _ = begun(path=str(tmp_path))
    with target:
        assert list(sink.folder.found) == [row["path"] for row in before]
        play(target, 10, [event("dog", 5.0, 6.0)], live=NOON)
    lines = (tmp_path / "clips.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines[:3]] == ["dog", "cat", "dog"]
