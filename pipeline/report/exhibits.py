"""Clips as part of a page: sound that can be heard and pictures that move, in the page's own bytes."""

import base64
import io
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import pipeline.report.page as page
from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.picture import Images
from pipeline.media.video_writer import write_video
from pipeline.report.page import Html

LONGEST = 10.0  # seconds of a clip that are shown
LARGEST = 400_000  # bytes of a track; of more, less is shown
PLAYED = range(1000, 192_001)  # rates that browsers play
TALLEST = 160  # pixels of a picture


def shown(x: Arrays, spec: InputSpec) -> Html:
    """The tracks of a clip (``input_spec.py``) as players; only their beginning, if they are long."""
    blocks = []
    if spec.picture:
        blocks.append(video(x[1] if spec.both else x[0], spec.picture.rate))
    if spec.sound:
        blocks.append(audio(x[0], spec.sound))
    return page.join(*blocks)


def audio(samples: Samples, rate: int) -> Html:
    """Samples ``(N,)`` as the model heard them, 16-bit FLAC."""
    if rate not in PLAYED:
        return page.tag("span", f"sound at {rate} Hz, which browsers do not play", class_="remark")
    file = io.BytesIO()
    part = samples[: round(min(LONGEST, LARGEST / (2 * rate)) * rate)]
    soundfile.write(file, np.nan_to_num(part).clip(-1, 1), rate, format="FLAC", subtype="PCM_16")
    return page.tag("audio", controls="controls", preload="none", src=uri("audio/flac", file.getvalue()))


def video(images: Images, rate: int) -> Html:
    """Pictures ``(T, H, W, 3)`` as the model saw them, in H.264; half as large and half as long until they are small
    enough.
    """
    images = images[: max(1, round(LONGEST * rate))]
    while max(images.shape[1:3]) > TALLEST:
        images = images[:, ::2, ::2]
    data = encoded(images, rate)
    while len(data) > LARGEST and len(images) > 1:
        images = images[: len(images) // 2]
        data = encoded(images, rate)
    flags = {name: name for name in ("controls", "loop", "muted", "playsinline")}
    return page.tag("video", preload="metadata", src=uri("video/mp4", data), **flags)


def encoded(images: Images, rate: int) -> bytes:
    """An mp4 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, images, rate)
        return path.read_bytes()


def uri(kind: str, data: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
