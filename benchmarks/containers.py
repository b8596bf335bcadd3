"""The same two seconds in every container and codec that the bundled ffmpeg writes: whole, cut, from a pipe and joined.

    python benchmarks/containers.py [--only TEXT]

What comes out is compared with what that program itself decodes, and with the two seconds. A row of the table is a
container and a codec; a cell is the codes that infer.py would give ("ok" if there are none), and "WRONG: why" where

* samples or pictures differ from ffmpeg's,
* a whole file has a code, or one from a pipe another one than unknown_length,
* half of a file has no code that says so (but for streams of pictures without any lengths),
* the second of two joined files is lost without a code.

What the product refuses is a code, too. Cells are empty where ffmpeg cannot write to a pipe. What is not the product's
fault stands in KNOWN, and in the table, with its reason.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from table import report  # beside this file

from pipeline.core.errors import MediaError
from pipeline.media.audio import probe, read
from pipeline.media.video import decode, probe_video

FFMPEG = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
SECONDS = 2
SOUND = "aevalsrc='0.3*sin(2*PI*(200+150*t)*t)+0.02*(random(0)-0.5)':d=2:s={rate}"
PICTURES = "testsrc=duration=2:size=176x144:rate=10"  # a size that H.261 and RealVideo take, too
RATES = (16000, 48000, 44100, 8000)
NO_FILES = re.compile(  # devices, networks, sums, texts, folders of pieces, samples or pictures without a header
    r"alsa|oss|pulse|sdl.*|opengl|xv|caca|fbdev|video4linux2.*|crc|.*hash|.*md5|framecrc|null|tee|fifo.*|rt[ps].*|sap"
    r"|whip|hls|dash|hds|smoothstreaming|.*segment.*|webm_dash.*|webm_chunk|image2.*|ass|srt|webvtt|ttml|lrc|sup|scc"
    r"|jacosub|microdvd|mcc|rcwt|data|ffmetadata|streamhash|uncodedframecrc|mkvtimestamp.*|chromaprint|a64|mpjpeg"
    r"|[suf]\d+[bl]?e?|alaw|mulaw|vidc|rawvideo|bit|codec2raw|g722|g726.*|g723_1|gsm|sbc|aptx.*|dfpwm|daud|h261|h263|adx"
)
HOSTS = {"audio": ("wav", "matroska", "mov", "avi"), "video": ("matroska", "mov", "avi", "mp4")}
BARE = {
    ".hevc",
    ".obu",
    ".h264",
    ".vvc",
    ".mpeg1video",
    ".mpeg2video",
    ".m4v",
}  # streams that say nothing of their length
KNOWN = {
    "smc": "the decoder in PyAV 18.1 leaves pixels unset",
    "vc2": "its decoder drops pictures whose numbers come again",
}
TOLERANCE = {"audio": 0.02, "video": 6.0}  # of samples from -1 to 1, of bytes; decoders round otherwise


def asked(*words):
    """What the ffmpeg program says."""
    return subprocess.run([FFMPEG[0], "-hide_banner", *words], capture_output=True, text=True).stdout


def cases(kind):
    """Container and codec: the default of every container, and every codec in containers that take many."""
    names = re.findall(r"^ {1,2}E {1,2}(\S+)", asked("-muxers"), re.MULTILINE)
    muxers = [name for name in names if not NO_FILES.fullmatch(name)]
    for muxer in muxers:
        if found := re.search(rf"Default {kind} codec: (\w+)", asked("-h", f"muxer={muxer}")):
            yield muxer, found[1]
    for codec in re.findall(rf"^ {kind[0].upper()}\S{{5}} (\S+)", asked("-encoders"), re.MULTILINE):
        if not re.search(r"_(nvenc|qsv|amf|vaapi|vulkan|v4l2m2m)|wrapped|null", codec):
            yield from ((host, codec) for host in HOSTS[kind])


def written(kind, muxer, codec, path, rate, pipe):
    """Whether ffmpeg could write the two seconds."""
    # its own names of codecs are sometimes those of decoders
    encoder = {"amr_nb": "libopencore_amrnb", "mp3": "libmp3lame", "vp8": "libvpx", "dts": "dca"}.get(codec, codec)
    source = SOUND.format(rate=rate) if kind == "audio" else PICTURES
    track = ["-c:a", encoder, "-ac", "1"] if kind == "audio" else ["-c:v", encoder]
    command = [*FFMPEG, "-f", "lavfi", "-i", source, *track, "-strict", "-2", "-f", muxer]
    try:
        if pipe:
            done = subprocess.run([*command, "pipe:1"], capture_output=True, timeout=60)
            path.write_bytes(done.stdout)
        else:
            done = subprocess.run([*command, path], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and path.exists() and path.stat().st_size > 200


def decoded_by_ffmpeg(kind, path, size):
    """Mono samples, or pictures as bytes."""
    form = ["-ac", "1", "-f", "f32le"] if kind == "audio" else ["-fps_mode", "passthrough", "-f", "rawvideo"]
    form = form if kind == "audio" else [*form, "-pix_fmt", "rgb24"]
    done = subprocess.run([*FFMPEG, "-i", path, "-map", f"0:{kind[0]}:0", *form, "-"], capture_output=True, timeout=60)
    if kind == "audio":
        return np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], np.float32)
    whole = len(done.stdout) // (size or 1) * size
    return np.frombuffer(done.stdout[:whole], np.uint8).reshape(-1, size or 1)


def decoded(kind, path):
    """The same by the product, and its codes. MediaError if it refuses the file."""
    if kind == "audio":
        samples, info = read(path, probe(path).rate)
        return samples, info.warnings
    info = probe_video(path)
    frames = [frame.image.reshape(-1) for _, _, frame in decode(str(path), info)]
    return np.stack(frames), info.warnings


def verdict(kind, way, path, truth):
    """The cell of the table."""
    try:
        ours, codes = decoded(kind, path)
    except MediaError as error:
        tried = way != "cut" and (error.code in ("no_samples", "no_frames") or "can be decoded" in str(error))
        lost = tried and len(decoded_by_ffmpeg(kind, path, 1))
        return f"WRONG: {error.code}; ffmpeg reads it" if lost else error.code
    theirs = decoded_by_ffmpeg(kind, path, ours.shape[1] if kind == "video" else 0)
    said, wrong = " ".join(codes) or "ok", []
    expected = truth * (2 if way == "joined" else 1)
    frame = 4096 if kind == "audio" else 2
    common = min(len(ours), len(theirs), truth) - (way == "cut" and kind == "video")  # the last picture may be half
    if common > 0 and np.abs(ours[:common].astype(np.float32) - theirs[:common]).mean() > TOLERANCE[kind]:
        wrong.append("others")
    between = min(len(theirs), expected) - 1 <= len(ours) <= max(len(theirs), expected) + 1
    spoilt = len(theirs) < expected - frame  # ffmpeg's own file lacks something
    if way in ("whole", "piped") and not (between and (spoilt or abs(len(ours) - expected) <= frame)):
        wrong.append(f"{len(ours)} of {expected}, ffmpeg {len(theirs)}")
    allowed = {"time_stamps"} if path.suffix == ".avi" else set()  # of B-frames it has none
    if (
        way in ("whole", "piped")
        and not spoilt
        and set(codes) - allowed - ({"unknown_length"} if way == "piped" else set())
    ):
        wrong.append("a code")
    if way == "cut" and not codes and len(ours) < expected - frame and path.suffix not in BARE:
        wrong.append("no code")
    if way == "joined" and not codes and len(ours) < expected - frame:
        wrong.append(f"lost, {len(ours)}")
    return f"WRONG: {said}; {', '.join(wrong)}" if wrong else said


def known(codec, cell):
    """The cell; one of a codec among those known is not wrong."""
    return cell.replace("WRONG", "known") if codec in KNOWN else cell


def row(kind, muxer, codec, folder):
    """Codes of the four ways; None if ffmpeg does not write this."""
    path = folder / f"a.{muxer.split(',')[0]}"
    rates = (8000,) if "amr" in codec else RATES if kind == "audio" else RATES[:1]
    for rate in rates:
        if written(kind, muxer, codec, path, rate, pipe=False):
            break
    else:
        return None
    try:
        truth = SECONDS * (probe(path).rate if kind == "audio" else 10)  # some codecs have a rate of their own
    except MediaError:
        truth = 0
    data, cells = path.read_bytes(), {}
    half = len(data) - len(data[len(data) * 6 // 10 :].lstrip(b"\0")[20:])  # not in zeros that mean nothing
    for way, content in (
        ("whole", data),
        ("cut", data[:half]),
        ("piped", b""),
        ("joined", data * 2),
    ):
        if way == "piped":
            if not written(kind, muxer, codec, path, rate, pipe=True):
                cells[way] = ""
                continue
        else:
            path.write_bytes(content)
        cells[way] = known(codec, verdict(kind, way, path, truth))
    path.unlink()
    return [kind, muxer, codec, *cells.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows with this text in them; nothing is kept")
    only = parser.parse_args().only
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("audio", "video"):
            for muxer, codec in dict.fromkeys(cases(kind)):
                if only in f"{kind} {muxer} {codec}" and (found := row(kind, muxer, codec, Path(folder))):
                    rows.append(found)
                    if only or any("WRONG" in cell for cell in found):
                        print(*found, sep=" | ", flush=True)
    wrong = sum("WRONG" in cell for found in rows for cell in found)
    print(f"{len(rows)} rows, {wrong} wrong")
    if not only:
        note = f"codes of {len(rows)} containers and codecs, each whole, cut, piped and joined: {wrong} wrong"
        note += "".join(f"\nknown, {codec}: {why}" for codec, why in KNOWN.items())
        report("containers", ["track", "container", "codec", "whole", "cut", "piped", "joined"], rows, note)


if __name__ == "__main__":
    main()
