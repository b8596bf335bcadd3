"""Clips as part of a page: sound that can be heard and pictures that move, in the page's own bytes."""

import base64
import io
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.picture import Images
from pipeline.media.series import Rows, Series
from pipeline.media.video_writer import write_video
from pipeline.report.charts import TONES, Plot, plot_lines

MAX_SECONDS = 10.0  # of a clip that are shown
MAX_BYTES = 400_000  # of a track; of more, less is shown
MAX_ROWS = 400  # of a series
MAX_PIXELS = 160  # height or width of a picture
PLAYED_RATES = range(1000, 192_001)  # that browsers play


class Track(NamedTuple):
    """Sound or video of a clip, as an address that holds its bytes, or a plot of a series; else a remark."""

    kind: str
    address: str = ""
    remark: str = ""
    plot: Plot | None = None


def embed_clip(x: Arrays, spec: InputSpec) -> list[Track]:
    """The tracks of a clip (``input_spec.py``); only their beginning, if they are long."""
    found = []
    if spec.series:
        found.append(draw_series(x[0], spec.series))
    if spec.picture:
        found.append(embed_video(x[1] if spec.both else x[0], spec.picture.rate))
    if spec.sound:
        found.append(embed_audio(x[0], spec.sound))
    return found


def draw_series(rows: Rows, series: Series) -> Track:
    """The first columns of rows ``(T, C)`` as lines, broken where values are missing."""
    times = [(tick / series.rate) for tick in range(min(len(rows), MAX_ROWS))]
    named = zip(series.columns[: len(TONES)], rows.T.tolist(), strict=False)
    plot = plot_lines({name: [*zip(times, line, strict=False)] for name, line in named}, "seconds", "Series")
    return Track("series", remark=f"series of {rows.shape[1]} columns, {len(rows)} rows", plot=plot)


def embed_audio(samples: Samples, rate: int) -> Track:
    """Samples ``(N,)`` as the model heard them, 16-bit FLAC."""
    if rate not in PLAYED_RATES:
        return Track("audio", remark=f"sound at {rate} Hz, which browsers do not play")
    file = io.BytesIO()
    part = samples[: round(min(MAX_SECONDS, MAX_BYTES / (2 * rate)) * rate)]
    soundfile.write(file, np.nan_to_num(part).clip(-1, 1), rate, format="FLAC", subtype="PCM_16")
    return Track("audio", to_address("audio/flac", file.getvalue()))


def embed_video(images: Images, rate: int) -> Track:
    """Pictures ``(T, H, W, 3)`` as the model saw them, in H.264; half as large and half as long until they are small
    enough.
    """
    images = images[: max(1, round(MAX_SECONDS * rate))]
    while max(images.shape[1:3]) > MAX_PIXELS:
        images = images[:, ::2, ::2]
    data = encode_video(images, rate)
    while len(data) > MAX_BYTES and len(images) > 1:
        images = images[: len(images) // 2]
        data = encode_video(images, rate)
    return Track("video", to_address("video/mp4", data))


def encode_video(images: Images, rate: int) -> bytes:
    """The bytes of an mp4 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, images, rate)
        return path.read_bytes()


def to_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
