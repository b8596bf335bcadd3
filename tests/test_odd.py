"""Odd, broken and hostile files, all of them through infer.py: an answer, or one row that says why there is none.

The files and what is expected of them come from a script beside the project's data, which needs an ffmpeg program.
"""

import csv
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import ROOT, lively_model, read_csv, read_jsonl, run, small_model, tone_clip
from test_model import rewritten

from pipeline.core.errors import MediaError, ModelError
from pipeline.media import container
from pipeline.media.audio import probe, read
from pipeline.media.chunks import open_chunks, read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.media.video import decode as decode_video
from pipeline.media.video import probe_video, read_frames
from pipeline.model.classifier import load

SCRIPT = ROOT.parent / "shared" / "oddmedia" / "make_odd.py"
STATUS = {"ok": "ok", "warn": "warning", "error": "error", "refuse": "error"}
SECONDS = 10  # for a file
SOUND, SIGHT = InputSpec(16000), InputSpec(picture=Picture(10, 32, 32))
MEDIA = ("h_playlist.mp4", "h_ssrf.m3u8", "h_concat.mp4", "h_frame_8k.mkv")  # of the hostile cases


def ffmpeg():
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def made(once, name, *options):
    """A folder with odd files, written once for all workers."""
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT} is not there")
    if not ffmpeg():
        pytest.skip("no ffmpeg program: pip install imageio-ffmpeg")

    def make(folder):
        command = [sys.executable, SCRIPT, folder, "--ffmpeg", ffmpeg(), *options]
        done = subprocess.run(command, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()

    return once(name, make)


@pytest.fixture(scope="module")
def odd(once):
    """The folder of odd files."""
    return made(once, "odd")


@pytest.fixture(scope="module")
def cases(odd):
    """What is expected, by file name; what is no recording at all is unreadable, whatever harm it could do elsewhere."""
    found = {case["file"]: case for case in read_jsonl(odd / "expected.jsonl")}
    for name, case in found.items():
        if case["kind"] == "hostile" and name not in MEDIA:
            case["code"] = "unreadable"
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small untrained models on disk: of sound, of pictures, of both."""
    folder = tmp_path_factory.mktemp("models")
    seeing = ["extractor=frames", "extractor.height=32", "extractor.width=32", "encoder=image_recurrent"]
    both = ["extractor=audiovisual", "extractor@extractor.picture=frames", "encoder=recurrent"]
    both += ["extractor.picture.height=16", "extractor.picture.width=16"]
    small_model().save(folder / "sound.safetensors")
    for name, overrides in (("pictures", seeing), ("both", both)):
        lively_model(*overrides, "encoder.hidden=8", "head=mean", times=1.0).save(folder / f"{name}.safetensors")
    return folder


def answered(model, paths, folder, sink, *settings, code=3):
    """One run of infer.py: the row of each path."""
    with open(folder / "list.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([["path"], *([str(path)] for path in paths)])
    out = folder / f"rows.{sink}"
    source = ["source=files", f"source.paths={folder / 'list.csv'}", "source.root=/"]
    sinks = [f"sink={sink}", f"sink.{sink}.path={out}"]
    done = run("infer.py", f"checkpoint={model}", *source, *sinks, *settings, cwd=folder)
    said = (done.stdout + done.stderr).decode(errors="replace")
    rows = read_csv(out) if sink == "csv" else read_jsonl(out)
    assert done.returncode == code and "Traceback" not in said, said
    assert [row["path"] for row in rows] == [str(path) for path in paths], "a row for each, by its name"
    return rows


def told(row):
    return row["status"], row["code"].split()


def check(row, case, also=()):
    """A row against what is expected; ``also``: a warning of models that take another track, too."""
    status, codes = told(row)
    if case["expect"] in ("error", "refuse"):
        assert (status, codes, row["label"]) == ("error", [case["code"]], ""), row
        return
    wanted = [case["code"]] if case["code"] else []
    assert status == ("warning" if [*wanted, *also] else STATUS[case["expect"]]), row
    assert {*wanted, *also} <= set(codes) and row["label"], row
    if case["expect"] == "ok":
        assert codes == [*also], row
    labels = ("background", "high", "low")
    found = row["posteriors"].values() if "posteriors" in row else [row[f"p_{label}"] for label in labels]
    assert sum(map(float, found)) == pytest.approx(1, abs=1e-4)


def unharmed(folder):
    """No payload has run."""
    assert not [*folder.rglob("PWNED*"), *folder.parent.glob("PWNED*")]


def of_pictures(cases):
    """The cases that a model of pictures is given."""
    return [case for case in cases.values() if case["kind"] in ("video", "hostile")]


def of_sound(cases):
    """The cases that a model of sound is given; a video with too large frames is a file without sound to it."""
    kinds = ("audio", "name", "hostile")
    return [case for case in cases.values() if case["kind"] in kinds and case["file"] != "h_frame_8k.mkv"]


def test_every_case_is_given_to_a_model(cases):
    assert {case["id"] for case in of_pictures(cases) + of_sound(cases)} == {case["id"] for case in cases.values()}
    assert len(cases) == 114


def test_every_video_and_every_sound(odd, cases, models, tmp_path):
    more = [{"file": os.fsdecode(b"n_\xff\xfe.wav"), "expect": "ok", "code": ""},
            {"file": "h_frame_8k.mkv", "expect": "error", "code": "no_audio"}]  # fmt: skip
    for name, sink, wanted in (("pictures", "jsonl", of_pictures(cases)), ("sound", "csv", of_sound(cases) + more)):
        rows = answered(models / f"{name}.safetensors", [odd / case["file"] for case in wanted], tmp_path, sink)
        for row, case in zip(rows, wanted, strict=True):
            check(row, case)
    unharmed(odd)


@pytest.mark.long
def test_every_file_through_a_model_of_both(odd, cases, models, tmp_path):
    kinds = ("audio", "name", "video")
    wanted = [case for case in cases.values() if case["kind"] in kinds or case["file"] in MEDIA]
    rows = answered(models / "both.safetensors", [odd / case["file"] for case in wanted], tmp_path, "jsonl")
    for row, case in zip(rows, wanted, strict=True):
        if case["file"] == "v_audio_only.mp4":
            check(row, {"expect": "ok", "code": ""}, ["no_video"])
            continue
        sounding = case["file"] in ("v_ok.mp4", "v_audio_drift.mp4")
        lacking = ["no_video"] if case["kind"] in ("audio", "name") else [] if sounding else ["no_audio"]
        check(row, case, lacking)
    unharmed(odd)


# ---------------------------------------------------------------- what comes out
def readable(cases, *kinds):
    """Names and properties of the cases that give something."""
    return [(n, c["props"]) for n, c in cases.items() if c["kind"] in kinds and c["expect"] in ("ok", "warn")]


def test_what_is_read_of_every_video(odd, cases):
    """Size, number, times and colours of the frames."""
    found = readable(cases, "video")
    for name, props in found:
        started, facts = time.monotonic(), probe_video(odd / name)
        frames = [(float(begin), frame) for begin, _, frame in decode_video(str(odd / name), facts)]
        assert time.monotonic() - started < SECONDS
        image = read_frames(odd / name, Picture(1, facts.height, facts.width, "stretch"))[0][0]
        read = {"frames": len(frames), "w": facts.width, "h": facts.height, "first_pts": float(facts.start)}
        read |= {"last_pts": frames[-1][0], "mean": image.mean()}
        for key, value in read.items():
            within = {"first_pts": 0.001, "last_pts": 0.001, "mean": 3}.get(key, 0)
            assert value == pytest.approx(props.get(key, value), abs=within, rel=0), (name, key)
        assert facts.decoded == len(frames)
    assert len(found) > 30
    assert probe_video(odd / "v_sar2.mp4").aspect == 2.0


SOFT = {"v_10bit.mkv": 5, "v_hdr_pq.mkv": 5, "v_interlaced.mp4": 5}  # where colours are spread otherwise at edges


@pytest.mark.long
def test_every_frame_is_that_of_the_ffmpeg_program(odd, cases):
    """Which turns pictures upright, too; it is another build than the library that reads here."""
    found = [name for name, _ in readable(cases, "video") if name != "v_res_change.ts"]
    for name in found:
        facts = probe_video(odd / name)
        ours = [frame for _, _, frame in decode_video(str(odd / name), facts)]
        command = [ffmpeg(), "-nostdin", "-loglevel", "quiet", "-i", odd / name, "-map", "0:v:0", "-f", "rawvideo"]
        done = subprocess.run([*command, "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"], capture_output=True)
        theirs = np.frombuffer(done.stdout, np.uint8).reshape(-1, facts.height, facts.width, 3)
        assert len(theirs) == len(ours), name
        for frame, other in list(zip(ours, theirs, strict=True))[:: max(1, len(ours) // 5)]:
            native = Picture(1, facts.height, facts.width, "stretch").fit(frame.image)
            assert np.abs(native.astype(int) - other).mean() < SOFT.get(name, 0.5), name
    assert len(found) > 30


def test_what_is_read_of_every_sound(odd, cases):
    """Rate, channels and number of samples."""
    found = readable(cases, "audio", "name")
    for name, props in found:
        started = time.monotonic()
        wave, facts = read(odd / name, probe(odd / name).rate)
        assert time.monotonic() - started < SECONDS
        heard = {"rate": facts.rate, "channels": facts.channels, "samples": len(wave)}
        assert heard == {key: props.get(key, value) for key, value in heard.items()}, name
        assert facts.decoded == len(wave) and np.isfinite(wave).all() and np.abs(wave).max() <= 32
    assert len(found) > 35


def test_damaged_sound_keeps_what_is_good(tmp_path):
    """And its time: what cannot be decoded is silence."""
    good, path = np.random.default_rng(3).normal(0, 0.1, 160_000), tmp_path / "a.flac"
    soundfile.write(path, good, 16000)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) * 6 // 10])
    cut, facts = read(path, 16000)
    assert len(cut) > 80_000 and np.abs(cut - good[: len(cut)]).max() < 1e-4 and "truncated" in facts.warnings
    middle = len(data) // 2
    data[middle : middle + 12_000] = bytes(12_000)
    path.write_bytes(data)
    flipped, facts = read(path, 16000)
    assert {"decode_errors", "gap"} <= set(facts.warnings) and len(flipped) == 160_000
    assert np.abs(flipped[:70_000] - good[:70_000]).max() < 1e-4
    assert np.abs(flipped[95_000:] - good[95_000:]).max() < 1e-4


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_was_cut_says_so(tmp_path, kind):
    """Its header does not know how long it is."""
    whole = tmp_path / "whole.ogg"
    soundfile.write(whole, np.random.default_rng(0).normal(0, 0.1, 480_000), 16000, format="OGG", subtype=kind)
    data = whole.read_bytes()
    assert read(whole, 16000)[1].warnings == []
    for share in (0.4, 0.6, 0.95):
        (tmp_path / "cut.ogg").write_bytes(data[: int(len(data) * share)])
        assert read(tmp_path / "cut.ogg", 16000)[1].warnings == ["truncated"]


def test_joined_ogg_streams(tmp_path):
    """Of one rate they are read to the end; of another rate, the second is warned of."""
    parts = {}
    for name, hertz, rate in (("a", 440, 16000), ("b", 880, 16000), ("c", 880, 48000)):
        soundfile.write(tmp_path / f"{name}.ogg", 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate), rate)
        parts[name] = (tmp_path / f"{name}.ogg").read_bytes()
    (tmp_path / "same.ogg").write_bytes(parts["a"] + parts["b"])
    wave, facts = read(tmp_path / "same.ogg", 16000)
    assert abs(len(wave) - 32000) < 400 and facts.warnings == []
    peaks = [np.abs(np.fft.rfft(part)).argmax() for part in (wave[4000:12000], wave[20000:28000])]
    assert peaks == [220, 440]
    (tmp_path / "other.ogg").write_bytes(parts["a"] + parts["c"])
    wave, facts = read(tmp_path / "other.ogg", 16000)
    assert len(wave) > 15000 and facts.warnings == ["rate_change"]


# ---------------------------------------------------------------- other mistakes
def error_of(path, spec):
    with pytest.raises(MediaError) as error:
        read_chunk(path, spec)
    return error.value.code, str(error.value)


def film(path, shades=(0,), codec="libx264", pixels="yuv420p", size=(32, 64), space=None, **opened):
    """A video of flat grey pictures."""
    with av.open(str(path), "w", **opened) as container:
        track = container.add_stream(codec, rate=25)
        track.height, track.width, track.pix_fmt = *size, pixels
        track.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        if space:
            track.codec_context.colorspace = space
        container.start_encoding()
        for shade in shades:
            image = av.VideoFrame.from_ndarray(np.full((*size, 3), shade, np.uint8), format="rgb24")
            container.mux(track.encode(image.reformat(format=pixels)))
        container.mux(track.encode(None) if shades else [])
    return path


def test_one_clear_message_each(tmp_path):
    """A picture for a video, a video without frames, sound for a model of pictures, and the reverse."""
    for name, codec, pixels in (("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p"), ("a.bmp", "bmp", "bgr24")):
        film(tmp_path / name, [0], codec, pixels, format="image2", options={"update": "1"})
        for spec in (SIGHT, SOUND, InputSpec(16000, SIGHT.picture)):
            code, message = error_of(tmp_path / name, spec)
            assert code == "picture" and "a single picture" in message
    for path in (film(tmp_path / "a.avi", []), film(tmp_path / "a.mov", [], options={"movflags": "empty_moov"})):
        assert error_of(path, SIGHT)[0] == "no_frames"
        assert error_of(path, SOUND)[0] == "no_audio"
    sound, silent = tmp_path / "a.wav", film(tmp_path / "silent.mp4")
    soundfile.write(sound, np.zeros(8000), 16000)
    assert error_of(sound, SIGHT) == ("no_video", f"no_video: {sound}: has no video track")
    assert error_of(silent, SOUND) == ("no_audio", f"no_audio: {silent}: has no sound track")
    (tmp_path / "a.pcm").write_bytes(bytes(8000))
    code, message = error_of(tmp_path / "a.pcm", SOUND)
    assert code == "format_unknown" and "source=stdin" in message


LISTS = [
    b"\xef\xbb\xbf#EXTM3U\n#EXTINF:2,\nsecret.ts\n", b"\n\n#EXTM3U\nsecret.ts\n", b"ffconcat version 1.0\nfile secret.ts\n",
    b'<?xml version="1.0"?><!-- a --><MPD><Period><BaseURL>secret.ts</BaseURL></Period></MPD>', b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    b"[playlist]\nFile1=secret.ts\n", b"<asx><entry><ref href='secret.ts'/></entry></asx>", b"[Reference]\r\nRef1=secret.ts\r\n",
]  # fmt: skip


@pytest.mark.parametrize("content", LISTS)
def test_no_list_makes_the_reader_open_another_file(tmp_path, content, monkeypatch):
    """It is recognised; and were it not, no demuxer that may be taken would follow it."""
    film(tmp_path / "secret.ts")
    assert len(read_chunk(tmp_path / "secret.ts", SIGHT)[0][0])
    for code in ("playlist", "unreadable"):
        for name in ("list.mp4", "list.m3u8", "list.mpd", "list.wav"):
            (tmp_path / name).write_bytes(content)
            assert error_of(tmp_path / name, SIGHT)[0] == error_of(tmp_path / name, SOUND)[0] == code
        monkeypatch.setattr(container, "HINTS", {})


def test_a_list_would_be_followed_by_an_ffmpeg_that_chooses_itself(tmp_path):
    """So the test above can fail."""
    film(tmp_path / "secret.ts")
    (tmp_path / "list.mp4").write_bytes(b"ffconcat version 1.0\nfile secret.ts\n")
    with av.open(str(tmp_path / "list.mp4")) as container:
        assert container.format.name == "concat" and next(container.decode(video=0)).width == 64


def box(kind, *parts):
    """A box of an MP4."""
    body = b"".join(parts)
    return (len(body) + 8).to_bytes(4, "big") + kind + body


def referring(data, entry):
    """An MP4 without its frames, which are said to be in another file: ``entry`` says in which."""
    out, at = b"", 0
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = referring(body, entry)
        elif kind == b"dref":
            body = body[:8] + entry
        elif kind == b"mdat":
            body = bytes(len(body))
        out, at = out + box(kind, body), at + size
    return out


def alias(path):
    """A Macintosh alias, the kind of reference that FFmpeg can follow."""
    name = b"HDD" + str(path).replace("/", ":").encode()
    name += bytes(len(name) % 2)
    levels = b"\0\1\0\1"  # from here up, and down to it
    record = bytes(10) + b"\3" + b"HDD".ljust(27, b"\0") + bytes(12) + b"\6" + b"secret".ljust(63, b"\0") + bytes(16)
    record += levels + bytes(16) + b"\0\2" + len(name).to_bytes(2, "big") + name + b"\xff\xff\0\0"
    return box(b"alis", bytes(4), record)


def test_frames_in_another_file_are_not_fetched(tmp_path):
    """By an alias, which FFmpeg would follow if it were told to, by an address, and by a reference movie."""
    secret = film(tmp_path / "secret.mp4", range(0, 200, 20))
    assert len(read_chunk(secret, SIGHT)[0][0])
    path, data = tmp_path / "a.mp4", secret.read_bytes()
    path.write_bytes(referring(data, alias(secret)))
    with av.open(str(path), options={"enable_drefs": "1"}) as container:
        assert len(list(container.decode(video=0))) == 10, "or the alias is not one that can be followed"
    assert error_of(path, SIGHT)[0] == "unreadable"
    for address in (b"secret.mp4\0", f"file://{secret}\0".encode()):
        path.write_bytes(referring(data, box(b"url ", bytes(4), address)))
        assert error_of(path, SIGHT)[0] == "unreadable"
        reference = box(b"rdrf", bytes(4), b"url ", len(address).to_bytes(4, "big"), address)
        path.write_bytes(box(b"moov", box(b"rmra", box(b"rmda", reference))))
        assert error_of(path, SIGHT)[0] == "no_video"


def test_no_file_beside_an_mp3_decides_how_it_is_read(tmp_path):
    """libsndfile takes a resource fork beside it for the sign of another format."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, 0.3 * np.sin(np.arange(32000) / 9), 16000)
    if path.read_bytes().startswith(b"ID3"):
        path.write_bytes(path.read_bytes()[10:])
    before, facts = read(path, 16000)
    (tmp_path / "._a.mp3").write_bytes(b"\0\5\x16\7" + bytes(200))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.SoundFile(path)
    after, again = read(path, 16000)
    assert np.array_equal(before, after) and facts.warnings == again.warnings == []


def test_a_picture_that_grows_takes_no_memory(tmp_path):
    """What the header says is not what the stream holds; the decoder itself is bound."""
    path = film(tmp_path / "a.mkv", size=(8192, 8192))
    data = path.read_bytes()
    for element in (b"\xb0\x82\x20\x00", b"\xba\x82\x20\x00"):  # width and height
        assert data.count(element) == 1
        data = data.replace(element, element[:2] + b"\x00\x40")
    path.write_bytes(data)
    found, grown, _ = decoded_alone(path, SIGHT)
    assert found == "limit_pixels" and grown < 64


def decoded_alone(path, spec, chunks=10**9):
    """What comes of a file (``ok`` or a code), the MiB that it takes at most, and its ticks."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell how much memory a process has taken since some moment")

    def peak():
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) >> 10

    Path("/proc/self/clear_refs").write_text("5")  # from now on
    ticks, found, before = 0, "ok", peak()
    try:
        for chunk in islice(open_chunks(path, spec)[1], chunks):
            ticks += spec.ticks(chunk)
    except MediaError as error:
        found = error.code
    return found, peak() - before, ticks


def test_a_row_of_pixels_upside_down(tmp_path):
    """The thinnest part of a frame that is turned."""
    path = film(tmp_path / "a.mp4", [40])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    images = read_chunk(path, InputSpec(picture=Picture(10, 1, 64)))[0][0]
    assert images.shape[1:] == (1, 64, 3) and images.mean() == pytest.approx(40, abs=3)


def test_colours_that_cannot_be_converted_are_an_error_of_the_file(tmp_path):
    code, message = error_of(film(tmp_path / "a.mp4", space=14), SIGHT)  # ICtCp
    assert code == "unsupported_codec" and "colour space 14" in message


# ---------------------------------------------------------------- hostile, but no media
def test_nothing_in_a_header_is_looked_up(models, tmp_path, monkeypatch):
    """``${...}`` stays what it is: as a label it is a label, as a setting it is a wrong one."""
    path, lookup = tmp_path / "m.safetensors", "${oc.env:RIVULET_SECRET}"
    shutil.copy(models / "sound.safetensors", path)
    rewritten(path, lambda card, _: card.update(labels=[lookup, "high", "low"], trained={"note": lookup}))
    assert load(path).labels[0] == lookup
    clip, out = tone_clip(tmp_path / "a.wav", 440), tmp_path / "rows.jsonl"
    settings = ["source=files", f"source.paths={clip}", "sink=[console,jsonl]", f"sink.jsonl.path={out}"]
    monkeypatch.setenv("RIVULET_SECRET", "hunter2")
    done = run("infer.py", f"checkpoint={path}", *settings)
    assert done.returncode == 0 and lookup in out.read_text(), done.stderr.decode()
    assert "hunter2" not in out.read_text() + done.stdout.decode() + done.stderr.decode()
    rewritten(path, lambda card, _: card["config"]["head"].update(window=lookup))
    with pytest.raises(ModelError, match=r"\$\{oc\.env:RIVULET_SECRET\}"):
        load(path)


# ---------------------------------------------------------------- huge
@pytest.fixture(scope="module")
def huge(once):
    """The folder of files that are, or claim to be, very long."""
    return made(once, "huge", "--huge", "--only", "z_")


@pytest.mark.long
def test_a_bomb_is_refused_from_its_header(huge, models, tmp_path):
    """Hours of silence in some MB: neither decoded nor held."""
    bomb, started = huge / "z_bomb_6h_8ch.flac", time.monotonic()
    for settings in ([], ["source.longest=600"]):
        rows = answered(models / "sound.safetensors", [bomb], tmp_path, "jsonl", "source.resume=never", *settings)
        assert told(rows[0]) == ("error", ["limit_duration"])
    assert time.monotonic() - started < 90, "decoding it takes minutes"
    found, grown, ticks = decoded_alone(bomb, SOUND, 500)
    assert found == "ok" and ticks > 10_000_000 and grown < 64, "even if it is not refused"


@pytest.mark.long
@pytest.mark.parametrize(("name", "hours", "codes"), [("z_long_2h.wav", 2, []), ("z_sparse_12h.wav", 12, ["silent"])])
def test_hours_stream_in_flat_memory(huge, models, tmp_path, name, hours, codes):
    """The second is a hole in the disk, so what there is of it is silence."""
    settings = ["source.longest=1e6", "source.patience=60", "source.memory=0.3"]
    rows = answered(models / "sound.safetensors", [huge / name], tmp_path, "jsonl", *settings, code=0)
    assert told(rows[0])[1] == codes and rows[0]["label"] and rows[0]["seconds"] == 3600 * hours
    found, grown, ticks = decoded_alone(huge / name, SOUND)
    assert (found, ticks) == ("ok", 3600 * 16000 * hours) and grown < 64
