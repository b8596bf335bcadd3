"""Odd, broken and hostile files, all of them through infer.py: an answer, or one row that says why there is none.

The files and what is expected of them come from a script beside the project's data, which needs an ffmpeg program.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, configured, small_model

from datasets.manifest import Manifest
from pipeline import media
from pipeline.batch import decode
from pipeline.build import build
from pipeline.encoder import Encoder
from pipeline.errors import ConfigError, ModelError
from pipeline.intake import Intake
from pipeline.media import media_files, probe, read
from pipeline.model import Classifier, load
from pipeline.picture import Picture
from pipeline.video import decode as decode_video
from pipeline.video import probe_video, read_frames

SCRIPT = ROOT.parent / "shared" / "oddmedia" / "make_odd.py"
STATUS = {"ok": "ok", "warn": "warning", "error": "error", "refuse": "error"}
SECONDS, BYTES = 10, 1 << 30  # for a file
SOUND, SIGHT = Intake(16000), Intake(picture=Picture(10, 32, 32))
MEDIA = ("h_playlist.mp4", "h_ssrf.m3u8", "h_concat.mp4", "h_frame_8k.mkv")  # of the hostile cases


def ffmpeg():
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder of odd files."""
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT} is not there")
    if not ffmpeg():
        pytest.skip("no ffmpeg program: pip install imageio-ffmpeg")
    folder = tmp_path_factory.mktemp("odd")
    made = subprocess.run([sys.executable, SCRIPT, folder, "--ffmpeg", ffmpeg()], capture_output=True, timeout=120)
    assert made.returncode == 0, made.stderr.decode()
    return folder


@pytest.fixture(scope="module")
def cases(odd):
    """What is expected, by file name."""
    with open(odd / "expected.jsonl", encoding="utf-8") as rows:
        return {case["file"]: case for case in map(json.loads, rows)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small untrained models on disk: of sound, of pictures, of both."""
    folder = tmp_path_factory.mktemp("models")
    seeing = ["extractor=frames", "extractor.height=32", "extractor.width=32", "encoder=image_recurrent"]
    both = ["extractor=audiovisual", "extractor@extractor.picture=frames", "encoder=recurrent"]
    both += ["extractor.picture.height=16", "extractor.picture.width=16"]
    small_model().save(folder / "sound.safetensors")
    for name, overrides in (("pictures", seeing), ("both", both)):
        torch.manual_seed(0)
        config = configured("train", *overrides, "encoder.hidden=8", "head=mean")
        Classifier(config, ["background", "high", "low"]).save(folder / f"{name}.safetensors")
    return folder


def answered(model, paths, folder, sink):
    """One run of infer.py: the row of each path, what it printed, and its peak in bytes."""
    with open(folder / "list.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([["path"], *([str(path)] for path in paths)])
    out = folder / f"rows.{sink}"
    command = [sys.executable, ROOT / "infer.py", f"checkpoint={model}", "source=files", f"source.paths={folder / 'list.csv'}",
               f"sink={sink}", f"sink.{sink}.path={out}"]  # fmt: skip
    with open(folder / "printed", "w+b") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    with open(out, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file)) if sink == "csv" else [json.loads(line) for line in file]
    assert process.returncode == 3 and "Traceback" not in text, text
    assert [row["path"] for row in rows] == [str(path) for path in paths], "a row for each, by its name"
    return rows, usage.ru_maxrss * 1024


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


@pytest.fixture(scope="module")
def lightest(models, tmp_path_factory):
    """The peak of a run that reads nothing but a text: of the libraries and the model."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "text.mp4").write_text("no video\n")
    return answered(models / "pictures.safetensors", [folder / "text.mp4"], folder, "jsonl")[1]


def unharmed(folder):
    """No payload has run."""
    assert not list(folder.parent.rglob("PWNED*"))


def test_every_video(odd, cases, models, tmp_path, lightest):
    wanted = [case for case in cases.values() if case["kind"] == "video" or case["file"] in MEDIA]
    assert len(wanted) > 40
    rows, peak = answered(models / "pictures.safetensors", [odd / case["file"] for case in wanted], tmp_path, "jsonl")
    for row, case in zip(rows, wanted, strict=True):
        check(row, case)
    unharmed(odd)
    assert peak - lightest < BYTES / 4, "of the files, beyond the libraries"


def test_every_sound(odd, cases, models, tmp_path):
    kinds = ("audio", "name")
    wanted = [case for case in cases.values() if case["kind"] in kinds or case["file"] in MEDIA]
    paths = [odd / case["file"] for case in wanted] + [odd / os.fsdecode(b"n_\xff\xfe.wav")]
    wanted.append({"expect": "ok", "code": "", "file": ""})
    assert len(wanted) > 60
    rows, _ = answered(models / "sound.safetensors", paths, tmp_path, "csv")
    for row, case in zip(rows, wanted, strict=True):
        silent = {"expect": "error", "code": "no_audio"}  # what is wrong with its pictures does not matter here
        check(row, silent if case["file"] == "h_frame_8k.mkv" else case)
    unharmed(odd)


def test_every_file_through_a_model_of_both(odd, cases, models, tmp_path):
    kinds = ("audio", "name", "video")
    wanted = [case for case in cases.values() if case["kind"] in kinds or case["file"] in MEDIA]
    rows, _ = answered(models / "both.safetensors", [odd / case["file"] for case in wanted], tmp_path, "jsonl")
    for row, case in zip(rows, wanted, strict=True):
        if case["file"] == "v_audio_only.mp4":
            check(row, {"expect": "ok", "code": ""}, ["no_video"])
            continue
        sounding = case["file"] in ("v_ok.mp4", "v_audio_drift.mp4")
        lacking = ["no_video"] if case["kind"] in ("audio", "name") else [] if sounding else ["no_audio"]
        check(row, case, lacking)
    unharmed(odd)


# ---------------------------------------------------------------- what comes out
def coded(path):
    """The Y, Cb and Cr in the middle of the first frame, as the file holds them, its matrix and whether it is full range."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
        return [int(p[p.shape[0] // 2, 40]) for p in planes], frame.colorspace, frame.color_range == 2


def colour(yuv, matrix, full):
    """The same as R, G, B by the formulas of BT.601 and BT.709."""
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    y, cb, cr = [yuv[0] / 255, *((v - 128) / 255 for v in yuv[1:])] if full else [(yuv[0] - 16) / 219, *((v - 128) / 224 for v in yuv[1:])]  # fmt: skip
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.clip(255 * np.array([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue]), 0, 255)


def intended(rgb, name):
    """What the script meant to write: Y, Cb, Cr of its formulas."""
    kr, kb = (0.299, 0.114) if "smpte" in name else (0.2126, 0.0722)
    red, green, blue = (value / 255 for value in rgb)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    full = "_pc" in name
    return [255 * y, 128 + 255 * cb, 128 + 255 * cr] if full else [16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]


def test_what_is_read_of_every_video(odd, cases):
    """Size, number, times and colours of the frames."""
    read_so_far = 0
    for name, case in cases.items():
        if case["kind"] != "video" or case["expect"] not in ("ok", "warn"):
            continue
        props, started = case["props"], time.monotonic()
        facts = probe_video(odd / name)
        frames = [(float(begin), frame) for begin, _, frame in decode_video(str(odd / name), facts)]
        assert time.monotonic() - started < SECONDS
        assert facts.decoded == len(frames) == props.get("frames", len(frames)), name
        assert (facts.width, facts.height) == (props.get("w", facts.width), props.get("h", facts.height)), name
        assert float(facts.start) == pytest.approx(props.get("first_pts", float(facts.start)), abs=0.001), name
        assert frames[-1][0] == pytest.approx(props.get("last_pts", frames[-1][0]), abs=0.001), name
        image = read_frames(odd / name, Picture(1, facts.height, facts.width, "stretch"))[0][0]
        if "mean" in props:
            assert image.mean() == pytest.approx(props["mean"], abs=3)
        if "rgb" in props:
            flat(odd / name, image, props["rgb"])
        read_so_far += 1
    assert read_so_far > 30
    assert probe_video(odd / "v_sar2.mp4").aspect == 2.0


def flat(path, image, rgb):
    """A flat colour comes out as the file has it, to 2 of 255 (and the same everywhere).

    Some builds of ffmpeg do not write what the script asks of them, but convert from BT.601 on the way; then what the
    planes of the file hold is the truth, and they are proved to be something else.
    """
    yuv, matrix, full = coded(path)
    assert full == ("_pc" in path.name) and matrix == (6 if "smpte" in path.name else 1), "as it is labelled"
    assert np.abs(image - colour(yuv, matrix, full)).max() <= 2.5, path.name
    if np.abs(np.subtract(yuv, intended(rgb, path.name))).max() <= 0.6:
        assert np.abs(image - np.array(rgb, float)).max() <= 2, path.name


SOFT = {"v_10bit.mkv": 5, "v_hdr_pq.mkv": 5, "v_interlaced.mp4": 5}  # where colours are spread otherwise at edges


def test_every_frame_is_that_of_the_ffmpeg_program(odd, cases):
    """Which turns pictures upright, too; it is another build than the library that reads here."""
    compared = 0
    for name, case in cases.items():
        if case["kind"] != "video" or case["expect"] not in ("ok", "warn") or name == "v_res_change.ts":
            continue
        facts = probe_video(odd / name)
        ours = [frame for _, _, frame in decode_video(str(odd / name), facts)]
        command = [ffmpeg(), "-nostdin", "-loglevel", "quiet", "-i", odd / name, "-map", "0:v:0", "-f", "rawvideo"]
        done = subprocess.run([*command, "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"], capture_output=True)
        theirs = np.frombuffer(done.stdout, np.uint8).reshape(-1, facts.height, facts.width, 3)
        assert len(theirs) == len(ours), name
        for frame, other in list(zip(ours, theirs, strict=True))[:: max(1, len(ours) // 5)]:
            native = Picture(1, facts.height, facts.width, "stretch").fit(frame.image)
            assert np.abs(native.astype(int) - other).mean() < SOFT.get(name, 0.5), name
        compared += 1
    assert compared > 30


def test_what_is_read_of_every_sound(odd, cases):
    """Rate, channels and number of samples."""
    read_so_far = 0
    for name, case in cases.items():
        if case["kind"] not in ("audio", "name") or case["expect"] not in ("ok", "warn"):
            continue
        props, started = case["props"], time.monotonic()
        facts = probe(odd / name)
        wave, facts = read(odd / name, facts.rate)
        assert time.monotonic() - started < SECONDS
        assert (facts.rate, facts.channels) == (props.get("rate", facts.rate), props.get("channels", facts.channels)), (
            name
        )
        assert len(wave) == facts.decoded == props.get("samples", len(wave)), name
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 32
        read_so_far += 1
    assert read_so_far > 35


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
def error_of(path, intake):
    found = decode(Path(path), intake, 600.0)
    assert found.error is not None, path
    return found.error.code, str(found.error)


def test_one_clear_message_each(tmp_path):
    """A picture for a video, a video without frames, sound for a model of pictures, and the reverse."""
    image = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")
    for name, codec, pixels in (("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p"), ("a.bmp", "bmp", "bgr24")):
        with av.open(str(tmp_path / name), "w", format="image2", options={"update": "1"}) as container:
            track = container.add_stream(codec, rate=1)
            track.height, track.width, track.pix_fmt = 32, 64, pixels
            container.mux(track.encode(image.reformat(format=pixels)))
            container.mux(track.encode(None))
        for intake in (SIGHT, SOUND, Intake(16000, SIGHT.picture)):
            code, message = error_of(tmp_path / name, intake)
            assert code == "picture" and "a single picture" in message
    for name in ("a.avi", "a.mov"):
        with av.open(
            str(tmp_path / name), "w", options={"movflags": "empty_moov"} if name == "a.mov" else {}
        ) as container:
            track = container.add_stream("libx264", rate=25)
            track.height, track.width, track.pix_fmt = 32, 64, "yuv420p"
            container.start_encoding()
        assert error_of(tmp_path / name, SIGHT)[0] == "no_frames"
        assert error_of(tmp_path / name, SOUND)[0] == "no_audio"
    sound, silent = tmp_path / "a.wav", tmp_path / "silent.mp4"
    soundfile.write(sound, np.zeros(8000), 16000)
    with av.open(str(silent), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.height, track.width, track.pix_fmt = 32, 64, "yuv420p"
        container.mux(track.encode(image))
        container.mux(track.encode(None))
    assert error_of(sound, SIGHT) == ("no_video", f"no_video: {sound}: has no video track")
    assert error_of(silent, SOUND) == ("no_audio", f"no_audio: {silent}: has no sound track")
    (tmp_path / "a.pcm").write_bytes(bytes(8000))
    assert (
        error_of(tmp_path / "a.pcm", SOUND)[0] == "format_unknown"
        and "source=stdin" in error_of(tmp_path / "a.pcm", SOUND)[1]
    )


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf#EXTM3U\n#EXTINF:2,\nsecret.ts\n", b"\n\n#EXTM3U\nsecret.ts\n", b"ffconcat version 1.0\nfile secret.ts\n",
     b'<?xml version="1.0"?><MPD><Period><BaseURL>secret.ts</BaseURL></Period></MPD>', b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
     b"[playlist]\nFile1=secret.ts\n", b"<asx><entry><ref href='secret.ts'/></entry></asx>"],
)  # fmt: skip
@pytest.mark.parametrize("seen_through", [True, False])
def test_no_file_makes_the_reader_open_another(tmp_path, content, seen_through, monkeypatch):
    """Neither if it is recognised at once, nor if it were not."""
    if not seen_through:
        monkeypatch.setattr(media, "PLAYLISTS", (b"\0",))
    with av.open(str(tmp_path / "secret.ts"), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.height, track.width, track.pix_fmt = 32, 64, "yuv420p"
        container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")))
        container.mux(track.encode(None))
    for name in ("list.mp4", "list.m3u8", "list.mpd"):
        (tmp_path / name).write_bytes(content)
        assert error_of(tmp_path / name, SIGHT)[0] in ("playlist", "unreadable")
    assert decode(tmp_path / "secret.ts", SIGHT, 600.0).error is None


def test_colours_that_cannot_be_converted_are_an_error_of_the_file(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.height, track.width, track.pix_fmt, track.codec_context.colorspace = 32, 64, "yuv420p", 14  # ICtCp
        container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")))
        container.mux(track.encode(None))
    code, message = error_of(tmp_path / "a.mp4", SIGHT)
    assert code == "unsupported_codec" and "colour space 14" in message


def test_folders_list_videos_and_no_playlists(tmp_path):
    names = ["a.gif", "b.MOV", "c.3gp", "d.mp4", "e.m3u8", "f.pt", "g.npy", "h.pcm", "i.png"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in media_files(tmp_path)] == names[:4]


# ---------------------------------------------------------------- hostile, but no media
def test_a_pickle_is_no_checkpoint(odd):
    with pytest.raises(ModelError, match="not a whole model"):
        load(odd / "h_pickle.pt")
    unharmed(odd)


@pytest.mark.parametrize("name", ["h_target.yaml", "h_target_alias.yaml", "h_target_torchload.yaml"])
def test_a_config_builds_only_our_own(odd, name):
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(odd / name))["model"]
    for kind in (Encoder, object):
        with pytest.raises(ConfigError, match="is not allowed"):
            build(config, kind, at="model")
    unharmed(odd)


def test_a_manifest_does_not_lead_out_of_its_folder(odd, tmp_path):
    with pytest.raises(ConfigError, match="leads out of"):
        Manifest(root=str(odd), file="h_manifest.jsonl")
    lines = (odd / "h_manifest.jsonl").read_text().splitlines()
    refused = 0
    for line in lines:
        others = [
            {"path": f"{label}{split}.wav", "label": label, "split": split}
            for label in "ab"
            for split in ("train", "val")
        ]
        rows = [json.loads(line) | {"split": "train"}, *others]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
        try:
            clips = Manifest(root=str(tmp_path), file="m.jsonl").clips
        except ConfigError as error:
            assert "leads out of" in str(error)
            refused += 1
        else:  # an address is only a strange name inside the folder
            assert all(clip.path.resolve().is_relative_to(tmp_path.resolve()) for clip in clips)
    assert refused == 2
