"""Reading pictures, and sound with pictures: the right frame at the right time, upright and in true colours.

Files are made here, with a number burned into each frame; what should come out is found by brute force from the time
stamps of the packets.
"""

import itertools
import re
import struct
import threading
from fractions import Fraction
from math import ceil

import av
import numpy as np
import pytest
import torch
from conftest import BOTH, PICTURES, lively_model
from torchvision.transforms.v2 import functional

from datasets.clips import Clip, Clips
from pipeline.batch.batch import Work, classify
from pipeline.batch.decoding import Limits, answers_to, chunk_of
from pipeline.batch.listing import Entry
from pipeline.core.errors import MediaError
from pipeline.layers.fuse import Fuse
from pipeline.media.chunks import open_chunks, read_chunk
from pipeline.media.input_spec import InputSpec, concatenate
from pipeline.media.picture import Picture, on_grid
from pipeline.media.prefetch import prefetch
from pipeline.media.video import probe_video, read_frames
from pipeline.media.video_writer import VideoWriter, write_video

HEIGHT, WIDTH = 32, 64
NATIVE = (HEIGHT, WIDTH)


def numbered(number, scale=1):
    """A picture that says which one it is: eight blocks, light or dark, are the bits of its number."""
    bits = np.array([number >> bit & 1 for bit in range(8)]).reshape(2, 4)
    image = np.where(bits, 235, 16).astype(np.uint8).repeat(16 * scale, 0).repeat(16 * scale, 1)
    return np.repeat(image[:, :, None], 3, 2)


def number_of(image):
    """The number burned into a picture of any size."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 4
    blocks = image[: 2 * rows, : 4 * columns].reshape(2, rows, 4, columns, 3).mean((1, 3, 4))
    assert ((blocks < 60) | (blocks > 190)).all(), "no number in this picture"
    return int(((blocks > 127).reshape(-1) << np.arange(8)).sum())


def numbers(images, there=None):
    """Those of pictures; None where there is none."""
    there = np.ones(len(images)) if there is None else there
    return [number_of(image) if here else None for image, here in zip(images, there)]


def picture_track(container, shape, codec="libx264", pixels="yuv420p", ticks=90_000, **options):
    track = container.add_stream(codec, rate=30, options={k: str(v) for k, v in options.items()})
    track.height, track.width, track.pix_fmt = *shape, pixels
    track.codec_context.time_base = track.time_base = Fraction(1, ticks)
    return track


def write(path, images, times, setup=None, ticks=90_000, **options):
    """Frames at times given in ``ticks`` a second."""
    with av.open(str(path), "w") as container:
        first = images[0]
        shape = (first.height, first.width) if isinstance(first, av.VideoFrame) else first.shape[:2]
        track = picture_track(container, shape, ticks=ticks, **options)
        if setup:
            setup(track.codec_context)
        for image, moment in zip(images, times, strict=True):
            frame = image if isinstance(image, av.VideoFrame) else av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, ticks)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def time_stamps(path, kind="video"):
    """When the packets of a track are to be shown, in seconds, in order, and how long the last one lasts."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(**{kind: 0}) if packet.pts is not None]
    packets.sort(key=lambda packet: packet.pts)
    return [packet.pts * packet.time_base for packet in packets], packets[-1].duration * packets[-1].time_base


def shown(stamps, last, rate, start=Fraction(0), end=None):
    """By brute force: which frame is on at start, start + 1 / rate, ...; None before the first one."""
    count = ceil((stamps[-1] + last - start) * rate)
    count = count if end is None else min(count, round((end - start) * rate))
    moments = [start + Fraction(k, rate) for k in range(count)]
    return [max((i for i, stamp in enumerate(stamps) if stamp <= moment), default=None) for moment in moments]


STAMPS = {
    **{f"{fps} fps": [round(i * 90_000 / fps) for i in range(40)] for fps in (10, 15, 20, 25, 30)},
    "29.97 fps": [i * 3003 for i in range(40)],
    "variable": np.random.default_rng(0).integers(600, 14_000, 40).cumsum().tolist(),
    "starts at 10 s": [900_000 + i * 3600 for i in range(40)],
    "starts odd": [12_345 + i * 3003 for i in range(40)],
    "freezes": [i * 3600 + (i >= 20) * 300_000 for i in range(40)],
}


@pytest.mark.parametrize(
    ("name", "ending"), [*((name, "mp4") for name in STAMPS), ("29.97 fps", "mkv"), ("variable", "mkv")]
)
def test_the_frame_at_a_time_is_the_last_that_had_begun(tmp_path, name, ending):
    path = write(tmp_path / f"a.{ending}", [numbered(i) for i in range(40)], STAMPS[name])
    stamps, last = time_stamps(path)
    if ending == "mp4":  # whose clock keeps what was written
        written = [Fraction(stamp - STAMPS[name][0], 90_000) for stamp in STAMPS[name]]
        assert [stamp - stamps[0] for stamp in stamps] == written
    relative = [stamp - stamps[0] for stamp in stamps]
    for rate in (5, 10, 12, 24, 25, 30, 60):
        images, facts = read_frames(path, Picture(rate, *NATIVE))
        assert numbers(images) == shown(relative, last, rate), rate
        assert facts.decoded == 40 and facts.start == stamps[0] and facts.end == relative[-1] + last
        assert facts.warnings == (["gap"] if name == "freezes" else [])


@pytest.mark.parametrize(
    ("start", "end"), [(0.3, 1.2), (0.35, 1.05), (0.0, 0.4), (0.77, None), (1.0, 9.0), (1.3, 1.31)]
)
def test_parts(tmp_path, start, end):
    path = write(tmp_path / "a.mp4", [numbered(i) for i in range(40)], STAMPS["29.97 fps"])
    stamps, last = time_stamps(path)
    for rate in (10, 25, 30):
        exact = [None if moment is None else Fraction(str(moment)) for moment in (start, end)]
        expected = shown([stamp - stamps[0] for stamp in stamps], last, rate, *exact)
        if not expected:
            with pytest.raises(MediaError, match=r"no_frames: no pictures from 1\.3 to 1\.31 s"):
                read_chunk(path, InputSpec(picture=Picture(rate, *NATIVE)), start, end)
            continue
        assert numbers(read_frames(path, Picture(rate, *NATIVE), start, end)[0]) == expected


@pytest.mark.parametrize(("rate", "frames", "expected"), [  # start and end in hundredths
    (2, [(0, 50, "a"), (50, 100, "b")], [("a", 1), ("b", 1)]),
    (1, [(0, 50, "a"), (50, 100, "b")], [("a", 1)]),
    (2, [(0, 1, "only")], [("only", 1)]),
    (4, [(150, 200, "late")], [("late", 2)]),  # nothing before it begins
    (10, [(26, 28, "brief")], [("brief", 1)]),  # what is between two moments is shown at the next
    (4, [(-200, -50, "over")], []),
])  # fmt: skip
def test_grid_in_small(rate, frames, expected):
    exact = [(Fraction(start, 100), Fraction(end, 100), frame) for start, end, frame in frames]
    assert list(on_grid(iter(exact), rate)) == expected


@pytest.mark.parametrize(("codec", "between"), [("libx264", 0), ("libx264", 3), ("mpeg4", 2)])
def test_avi_with_frames_that_are_stored_out_of_order(tmp_path, codec, between):
    """No picture is lost, and none is out of its place."""
    how = {"codec": codec, "ticks": 25, "bf": between, "qmax": 4}
    path = write(tmp_path / "a.avi", [numbered(i) for i in range(40)], range(40), **how)
    images, facts = read_frames(path, Picture(25, *NATIVE))
    assert numbers(images) == list(range(40)) and facts.decoded == 40 and facts.end == Fraction(40, 25)
    assert facts.warnings == (["time_stamps"] if codec == "libx264" and between else [])


def test_a_stream_without_time_stamps_begins_at_zero(tmp_path):
    path = write(tmp_path / "a.ts", [numbered(i) for i in range(20)], [i * 3600 for i in range(20)], bf=0)
    data = bytearray(path.read_bytes())
    for match in re.finditer(rb"\x00\x00\x01\xe0..\x80", data, re.DOTALL):
        data[match.end()] &= 0x3F  # no time stamps in this packet
    path.write_bytes(data)
    images, facts = read_frames(path, Picture(25, *NATIVE))
    assert facts.start == 0 and facts.decoded == 20 and numbers(images) == list(range(20))


# ---------------------------------------------------------------- how pictures come out
def with_matrix(path, matrix):
    """The same mp4 with another display matrix in its track header: a, b, c, d of x' = ax + cy, y' = bx + dy."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    other = path.with_name("turned.mp4")
    other.write_bytes(data)
    return other


def moved(image, matrix):
    """Each pixel where the matrix sends it."""
    a, b, c, d = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    right, down = a * x + c * y, b * x + d * y
    right, down = right - right.min(), down - down.min()
    found = np.zeros((down.max() + 1, right.max() + 1, 3), np.uint8)
    found[down, right] = image
    return found


MATRICES = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
            (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]  # fmt: skip


@pytest.mark.parametrize("matrix", MATRICES)
def test_turned_and_mirrored_pictures_come_out_upright(tmp_path, matrix):
    """As phones and front cameras write them."""
    path = write(tmp_path / "a.mp4", [numbered(0b10110010)], [0])
    plain = read_frames(path, Picture(10, *NATIVE))[0][0]
    expected = moved(plain, matrix)
    images, facts = read_frames(with_matrix(path, matrix), Picture(10, *expected.shape[:2]))
    assert (facts.height, facts.width) == expected.shape[:2]
    assert np.array_equal(images[0], expected)


def wide(context):
    context.sample_aspect_ratio = Fraction(2, 1)


def test_pixels_that_are_not_square(tmp_path):
    """Coded 64 x 32 and shown 128 x 32: the squares of the number become oblongs that are cut or framed as such."""
    path = write(tmp_path / "a.mp4", [numbered(0b10110010)], [0], wide)
    assert probe_video(path).aspect == 2.0
    raw = read_frames(path, Picture(10, *NATIVE, "stretch"))[0][0]
    cropped = read_frames(path, Picture(10, 32, 32))[0][0]
    assert np.array_equal(cropped, resized(raw[:, 24:40], 32, 32))
    framed = read_frames(path, Picture(10, 64, 64, "pad"))[0][0]
    assert np.array_equal(framed[24:40], resized(raw, 16, 64)) and not framed[:24].any() and not framed[40:].any()
    upright = read_frames(with_matrix(path, (0, 1, -1, 0)), Picture(10, 64, 64, "pad"))[0][0]  # shown 32 x 128
    assert np.array_equal(upright[:, 24:40], resized(np.rot90(raw, -1), 64, 16)) and not upright[:, :24].any()


def test_size_change_in_mid_stream(tmp_path):
    first = write(tmp_path / "a.ts", [numbered(i) for i in range(25)], [i * 3600 for i in range(25)], bf=0)
    second = [numbered(i, scale=2) for i in range(25, 50)]
    write(tmp_path / "b.ts", second, [i * 3600 for i in range(25, 50)], bf=0)
    first.write_bytes(first.read_bytes() + (tmp_path / "b.ts").read_bytes())
    images, facts = read_frames(first, Picture(25, *NATIVE))
    assert numbers(images) == list(range(50)) and facts.warnings == ["size_change"]


@pytest.mark.parametrize("shape", [(121, 161), (1, 1), (3, 5), (17, 64)])
def test_odd_sizes_are_lossless_where_the_file_is(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mov", images, [i * 3600 for i in range(5)], codec="png", pixels="rgb24")
    read, facts = read_frames(path, Picture(25, *shape))
    assert np.array_equal(read, images) and (facts.height, facts.width) == shape and facts.warnings == []


SPACES = {"BT.601": (6, 0.299, 0.114), "BT.709": (1, 0.2126, 0.0722)}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("space", SPACES)
def test_colours(tmp_path, space, full):
    """Flat colours, made YUV here: the matrix and the range are those that the file names."""
    code, kr, kb = SPACES[space]
    colours = [(255, 255, 255), (0, 0, 0), (64, 64, 64), (192, 32, 64), (20, 200, 90), (10, 40, 220)]
    frames = []
    for red, green, blue in np.array(colours) / 255:
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        chroma = np.array([(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
        coded = [255 * luma, *(128 + 255 * chroma)] if full else [16 + 219 * luma, *(128 + 224 * chroma)]
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, coded):
            plane.update(bytes([min(255, round(value))]) * plane.buffer_size)
        frame.colorspace, frame.color_range = code, 2 if full else 1
        frames.append(frame)

    def tags(context):
        context.colorspace, context.color_range = code, 2 if full else 1

    path = write(tmp_path / "a.mp4", frames, [i * 3600 for i in range(6)], tags, qp=0)
    images, _ = read_frames(path, Picture(25, *NATIVE))
    assert np.abs(images[:, 5:-5, 5:-5].astype(int) - np.array(colours)[:, None, None]).max() <= 4


def test_interlaced_video_is_read_and_doubted(tmp_path):
    images, times = [numbered(i) for i in range(9)], [i * 3600 for i in range(9)]
    path = write(tmp_path / "a.mp4", images, times, **{"x264-params": "tff=1"})
    images, facts = read_frames(path, Picture(25, *NATIVE))
    assert numbers(images) == list(range(9)) and facts.warnings == ["interlaced"]


# ---------------------------------------------------------------- fitting
def resized(image, height, width):
    """torchvision itself, on planes."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return functional.resize(planes, [height, width], antialias=True).numpy().transpose(1, 2, 0)


SHAPES = [(120, 160), (160, 120), (240, 320), (64, 64), (31, 90), (200, 37)]


@pytest.mark.parametrize("shape", SHAPES)
def test_fit_is_torchvision(shape):
    """Cropped, padded and stretched to 32 x 64 by its own functions."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(Picture(10, *NATIVE, "stretch").fit(image), resized(image, *NATIVE))
    height, width = shape
    kept = (height, round(height * 2)) if width > 2 * height else (round(width / 2), width)
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    planes = functional.crop(torch.from_numpy(image).permute(2, 0, 1), top, left, *kept)
    assert np.array_equal(Picture(10, *NATIVE).fit(image), resized(planes.permute(1, 2, 0).numpy(), *NATIVE))
    inner = (round(64 * height / width), 64) if width > 2 * height else (32, round(32 * width / height))
    small = torch.from_numpy(resized(image, *inner).copy()).permute(2, 0, 1)
    top, left = (32 - inner[0]) // 2, (64 - inner[1]) // 2
    padded = functional.pad(small, [left, top, 64 - inner[1] - left, 32 - inner[0] - top])
    assert np.array_equal(Picture(10, *NATIVE, "pad").fit(image), padded.permute(1, 2, 0).numpy())
    assert Picture(10, *shape).fit(image) is image, "what has the size already is left alone"


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_training_batches_and_live_see_the_same_pixels(tmp_path, how):
    """A picture in a clip of a dataset (decoded, cached, read again), in a batch, and as a camera would hand it over."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(12)]
    path = write(tmp_path / "a.mp4", made, [i * 9000 for i in range(12)])
    spec = InputSpec(picture=Picture(10, 48, 56, how))
    clips = Clips([Clip(path, "a")], ["a"], spec, tmp_path / "cache")
    trained, again = clips[0].x[0], clips[0].x[0]
    (message, _) = answers_to({"path": str(path), "start": 0.0, "end": None}, spec, Limits())
    many = chunk_of(message, spec)[0]
    with av.open(str(path)) as container:
        raw = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    live = spec.parts(raw)[0]
    assert trained.shape == (12, 48, 56, 3) and trained.std() > 10
    for other in (again, many, live):
        assert np.abs(trained.astype(int) - other.astype(int)).max() == 0


@pytest.mark.long
@pytest.mark.parametrize("overrides", [(*PICTURES, "head.delay=0.5"), BOTH], ids=["seen", "both"])
def test_many_files_have_the_answers_of_each_alone(tmp_path, overrides):
    """To the bit in whatever company; and those of the whole clip."""
    model = lively_model(*overrides, "encoder.hidden=8")
    paths = [both_tracks(tmp_path / f"{n}.mkv", n, 0.2, 0) for n in (25, 60, 90)] + [tmp_path / "none.mkv"]

    def answers(paths, **settings):
        found = classify(Work(model, **settings), enumerate(Entry(str(path)) for path in paths))
        return {row.path: row for _, row in found}

    rows = answers(paths, batch=1, workers=1)
    assert answers(paths[::-1], batch=3, workers=1) == rows
    for path in paths[:-1]:
        parts, known = read_chunk(path, model.spec)
        x = model.spec.stack([parts])
        whole = model.clip_posteriors(x if model.spec.both else x[0], torch.tensor([model.spec.ticks(parts)]))[0]
        assert list(rows[str(path)].posteriors.values()) == pytest.approx(whole.tolist(), abs=2e-5)
        assert rows[str(path)].seconds == round(known.seconds, 3)


# ---------------------------------------------------------------- sound and pictures on one clock
CLICK = 600  # ms after the start of the sound


def both_tracks(path, frames, seen_at, heard_at, fps=25, sound="pcm_s16le", seconds=None, hole=0):
    """Numbered frames from ``seen_at`` seconds on, and from ``heard_at`` on a sound with one click; with a ``hole`` of so
    many seconds before the click.
    """
    seconds = frames / fps if seconds is None else seconds
    wave = (np.random.default_rng(0).standard_normal(round(16000 * seconds)) * 60).astype(np.int16)
    wave[CLICK * 16 : CLICK * 16 + 40] = 30_000
    with av.open(str(path), "w") as container:
        heard = container.add_stream(sound, rate=16000, layout="mono")
        seen = picture_track(container, NATIVE) if frames else None
        for at in range(0, len(wave), 1024):
            part, form = wave[None, at : at + 1024], "s16"
            if sound == "aac":
                part, form = part / np.float32(32768), "fltp"
            frame = av.AudioFrame.from_ndarray(part, format=form, layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = at + round(16000 * (heard_at + (hole if at >= 4096 else 0)))
            container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(90_000 * (seen_at + number / fps)), Fraction(1, 90_000)
            container.mux(seen.encode(frame))
        if seen:
            container.mux(seen.encode(None))
    return path


def clicked(samples):
    """The second at which the click comes."""
    return np.flatnonzero(np.abs(samples) > 0.5)[0] / 16000


TWO = InputSpec(16000, Picture(10, *NATIVE))
STARTS = [(0, 0), (0.37, 0), (0, 0.263), (10.21, 10.5), (0.04, 0), (2.5, 0), (3, 3.33)]


@pytest.mark.parametrize(("seen_at", "heard_at"), STARTS)
def test_sound_and_pictures_share_a_clock(tmp_path, seen_at, heard_at):
    rate = 25
    path = both_tracks(tmp_path / "a.mkv", 40, seen_at, heard_at)
    stamps, last = time_stamps(path)
    heard = time_stamps(path, "audio")[0][0]
    zero = min(stamps[0], heard)
    (samples, images, present), facts = read_chunk(path, InputSpec(16000, Picture(rate, *NATIVE)))
    expected = shown([stamp - zero for stamp in stamps], last, rate)
    assert len(samples) == len(images) * 16000 // rate and len(present) == len(images)
    there = present[:, 1] == 1
    assert numbers(images, there)[: len(expected)] == expected
    assert not there[len(expected) :].any() and not images[~there].any()
    begin, end = (heard - zero) * rate, (heard - zero + Fraction(16, 10)) * rate  # of the sound, in pictures
    assert clicked(samples) == pytest.approx(float(begin) / rate + CLICK / 1000, abs=0.0011)  # as Matroska counts ms
    assert present[:, 0].tolist() == [float(k + 1 > begin and k < end) for k in range(len(images))]
    assert facts.seconds == pytest.approx(float(max(stamps[-1] + last - zero, end / rate)), abs=0.002)


@pytest.mark.parametrize(("seen_at", "heard_at"), STARTS[:3])
def test_parts_of_both(tmp_path, seen_at, heard_at):
    """They begin where they were asked to, also between two pictures."""
    path = both_tracks(tmp_path / "a.mkv", 40, seen_at, heard_at)
    (stamps, last), heard = time_stamps(path), time_stamps(path, "audio")[0][0]
    zero = min(stamps[0], heard)
    click = heard - zero + Fraction(CLICK, 1000)
    for start, end in ((0.0, 0.5), (0.3, 0.9), (0.4, 3.0), (0.5, None), (0.437, 1.437)):
        (samples, images, present), _ = read_chunk(path, TWO, start, end)
        begin, stop = (None if second is None else Fraction(str(second)) for second in (start, end))
        expected = shown([stamp - zero for stamp in stamps], last, 10, begin, stop)
        assert numbers(images, present[:, 1]) == (expected + [None] * 10)[: len(images)]
        if begin < click < (stop or 9):
            assert clicked(samples) == pytest.approx(float(click - begin), abs=0.0011)


def test_a_flash_and_a_click(tmp_path):
    """In an mp4 as cameras write it: AAC, and pictures that begin a little later."""
    path = both_tracks(tmp_path / "a.mp4", 60, 0.12, 0.0, fps=50, sound="aac", seconds=2.0)
    (samples, images, present), _ = read_chunk(path, InputSpec(16000, Picture(50, *NATIVE)))
    flash = next(k for k in range(len(images)) if present[k, 1] and number_of(images[k]) == 24)  # 24 / 50 + 0.12 = 0.6
    assert abs(flash / 50 - 0.6) < 1e-6 and abs(clicked(samples) - 0.6) < 0.002


def test_a_hole_in_the_sound_is_silence(tmp_path):
    """What follows keeps its time; a hole of hours is refused."""
    path = both_tracks(tmp_path / "a.mkv", 75, 0, 0, seconds=1.0, hole=1.5)
    (samples, _, present), facts = read_chunk(path, TWO)
    assert clicked(samples) == pytest.approx(2.1, abs=0.0011) and "gap" in facts.warnings
    assert present[:25, 0].all() and not samples[5000 : 16000 * 7 // 4].any()
    with pytest.raises(MediaError) as error:
        read_chunk(both_tracks(tmp_path / "b.mkv", 5, 0, 0, seconds=1.0, hole=9000), InputSpec(16000))
    assert error.value.code == "limit_duration"


def test_a_missing_track_is_marked(tmp_path):
    silent = write(tmp_path / "a.mp4", [numbered(i) for i in range(20)], [i * 9000 for i in range(20)])
    (samples, images, present), facts = read_chunk(silent, TWO)
    assert numbers(images) == list(range(20)) and len(samples) == 32000 and not samples.any()
    assert present.tolist() == [[0.0, 1.0]] * 20 and facts.warnings == ["no_audio"]
    blind = both_tracks(tmp_path / "b.mkv", 0, 0, 0, seconds=1.0)
    (samples, images, present), facts = read_chunk(blind, TWO)
    assert clicked(samples) == CLICK / 1000 and images.shape == (10, *NATIVE, 3) and not images.any()
    assert present.tolist() == [[1.0, 0.0]] * 10 and facts.warnings == ["no_video"]


def test_pictures_to_be_shown_are_read_little_ahead(tmp_path):
    """A model of both would hold a whole block of full-size frames."""
    path, seen = both_tracks(tmp_path / "a.mkv", 90, 0, 0), []
    _, chunks = open_chunks(path, TWO, view=lambda seconds, image: seen.append(seconds))
    parts = []
    for chunk in chunks:
        parts.append(chunk)
        assert len(seen) <= 2.5 * (len(parts) + 3)
    assert len(seen) == 90 and np.array_equal(concatenate(parts)[1], read_chunk(path, TWO)[0][1])


@pytest.mark.parametrize("value", [np.float64(0.7), 300, np.float32(np.nan)])
def test_pictures_that_are_no_bytes_are_refused(value):
    images = np.full((2, *NATIVE, 3), value)
    with pytest.raises(ValueError, match=rf"got pictures of {images.dtype}; expected uint8 RGB, 0 to 255"):
        InputSpec(picture=Picture(10, *NATIVE)).parts(images)


def fused_by_hand(steps, fast, slow):
    """One step after another: what a reader of the docstring would write."""
    held, known, out = np.zeros(slow), 0.0, []
    for step in steps:
        here, news = step[fast], step[-1]
        if news > 0:
            held, known = step[fast + 1 : -1], 1.0
        elif news < 0:
            held, known = np.zeros(slow), 0.0
        out.append(np.concatenate([step[:fast] * (here > 0), [float(here > 0)], held, [known]]))
    return np.stack(out)


def test_fuse_holds_the_newest_slow_vector():
    rng = np.random.default_rng(0)
    fast, slow, rows = 3, 2, 4
    x = rng.standard_normal((rows, 50, fast + slow + 2)).astype(np.float32)
    x[:, :, fast] = rng.integers(0, 2, (rows, 50))
    x[:, :, -1] = rng.choice([-1, 0, 0, 0, 1], (rows, 50))
    fuse = Fuse(fast, slow)
    state, found = fuse.initial(rows), []
    for part in np.split(x, np.sort(rng.integers(0, 50, 6)), axis=1):
        y, state = fuse(torch.from_numpy(part), state)
        found.append(y)
    expected = np.stack([fused_by_hand(row, fast, slow) for row in x])
    assert np.array_equal(torch.cat(found, 1).numpy(), expected.astype(np.float32))


# ---------------------------------------------------------------- writing, and reading ahead
@pytest.mark.parametrize("shape", [(32, 64), (33, 65)])
def test_written_videos_come_back(tmp_path, shape):
    """With their times; sizes become even, and a time that does not rise is left out."""
    times = [0.0, 0.04, 0.5, 0.5, 0.51, 0.3, 1.7, 1.72]
    writer = VideoWriter(tmp_path / "deep" / "a.mp4")
    for number, moment in enumerate(times):
        image = np.zeros((*shape, 3), np.uint8)
        image[:HEIGHT, :WIDTH] = numbered(number)
        writer.write(image, moment)
    writer.close()
    even = tuple(size + size % 2 for size in shape)
    images, facts = read_frames(tmp_path / "deep" / "a.mp4", Picture(100, *even))
    risen = {0: 0.0, 1: 0.04, 2: 0.5, 4: 0.51, 6: 1.7, 7: 1.72}
    stamps, _ = time_stamps(tmp_path / "deep" / "a.mp4")
    assert [float(stamp) for stamp in stamps] == pytest.approx(list(risen.values()), abs=1 / 90_000)
    assert (facts.height, facts.width) == even and facts.decoded == 6
    found = numbers(images[:, :32, :64])
    assert all(found[ceil(moment * 100)] == number for number, moment in risen.items())


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("take:1.mp4", np.zeros((3, 32, 64, 3), np.uint8), 5)
    assert len(time_stamps(tmp_path / "take:1.mp4")[0]) == 3


def test_written_colours_come_back(tmp_path):
    colours = np.array([(255, 255, 255), (0, 0, 0), (192, 32, 64), (20, 200, 90)], np.uint8)
    write_video(tmp_path / "a.mp4", np.broadcast_to(colours[:, None, None], (4, 48, 64, 3)), 5)
    images, facts = read_frames(tmp_path / "a.mp4", Picture(5, 48, 64))
    assert len(images) == 4 and facts.rate == pytest.approx(5, abs=0.1)
    assert np.abs(images[:, 8:-8, 8:-8].astype(int) - colours[:, None, None]).max() <= 8


def test_reading_ahead_keeps_order_and_hands_over_errors():
    def fails():
        yield from range(7)
        raise MediaError("truncated", "here")

    taken = []
    with pytest.raises(MediaError, match="truncated: here"):
        for item in prefetch(fails(), 2):
            taken.append(item)
    assert taken == list(range(7)) and list(prefetch(iter(()))) == []


def test_reading_ahead_is_early_but_not_too_early_and_ends_when_it_is_left():
    before, made, enough = threading.active_count(), [], threading.Event()

    def items():
        for number in itertools.count():
            made.append(number)
            if number == 4:
                enough.set()
            yield number

    early = prefetch(items(), 3)
    assert next(early) == 0 and enough.wait(5)
    early.close()
    assert len(made) == 5, "one taken, three waiting, one in hand"
    assert threading.active_count() == before
