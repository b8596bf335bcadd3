"""What a capture process runs: pictures from a camera through OpenCV, and from an address through PyAV.

This file imports no torch, so that the process starts fast.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pipeline.media.picture import MAX_PIXELS
from pipeline.sources.capture import VideoFrame

PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtsps,rtmp,rtmps,srt,crypto"  # never files
LOW_DELAY = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000", "probesize": "500000"}


def grab_camera(
    name: int | str, width: int | None, height: int | None, rate: float | None
) -> Iterator[str | VideoFrame]:
    """Pictures of a camera: an index, or a path such as /dev/video0. LookupError if there are none (any more)."""
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"  # the error below says what is wrong
    import cv2

    camera = cv2.VideoCapture(name)
    if not camera.isOpened():
        raise LookupError("there is no such camera, another program holds it, or this one may not use it")
    wanted = {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: height, cv2.CAP_PROP_FPS: rate}
    for key, value in wanted.items():
        if value is not None:
            camera.set(key, value)
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    got = [camera.get(key) for key in wanted]
    yield f"{got[0]:.0f}x{got[1]:.0f} pixels, {got[2]:.4g} a second"
    while camera.grab():
        captured = time.monotonic()
        good, image = camera.retrieve()
        if good:
            rgb: Any = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield VideoFrame(rgb, captured)
    raise LookupError("the camera gives no more pictures")


def grab_url(url: str, options: dict[str, str], timeout: float) -> Iterator[str | VideoFrame]:
    """Pictures of a network stream with their time stamps. LookupError if there are none (any more)."""
    import av

    av.logging.set_level(None)
    try:
        container = av.open(url, options=LOW_DELAY | options | {"protocol_whitelist": PROTOCOLS}, timeout=timeout)
    except av.error.ExitError:
        raise LookupError(f"no answer within {timeout:g} s") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise LookupError(str(getattr(error, "strerror", None) or error)) from None
    with container:
        if not container.streams.video:
            raise LookupError("the stream has no pictures")
        track: Any = container.streams.video[0]
        if track.codec_context is None:
            raise LookupError("no decoder for this kind of video")
        track.thread_type = "SLICE"  # threads by frame would hold as many frames back
        context = track.codec_context
        context.flags |= av.codec.context.Flags.low_delay
        yield f"{context.width}x{context.height} pixels, {float(track.average_rate or 0):.4g} a second"
        try:
            for packet in container.demux(track):
                captured, frames = time.monotonic(), list[Any]()
                with suppress(av.FFmpegError):  # a damaged packet
                    frames = list(packet.decode())
                for frame in frames:
                    if frame.width * frame.height > MAX_PIXELS:
                        raise LookupError(f"frames of {frame.width}x{frame.height} are too large")
                    aspect = float(context.sample_aspect_ratio or 1)
                    yield VideoFrame(frame.to_ndarray(format="rgb24"), captured, frame.time, aspect)
        except (av.FFmpegError, OSError) as error:
            raise LookupError(f"the stream broke off ({getattr(error, 'strerror', None) or error})") from None
    raise LookupError("the stream has ended")
