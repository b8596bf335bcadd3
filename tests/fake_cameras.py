"""Cameras that fail, for capture processes, which import this file: it loads no torch, so that they start fast."""

import os
import time

import numpy as np

from pipeline.sources.capture import VideoFrame


def picture():
    return VideoFrame(np.full((2, 2, 3), 1, np.uint8), time.monotonic())


def hanging():
    yield "a camera that hangs"
    yield picture()
    time.sleep(1000)


def dying():
    yield "a camera that takes its process with it"
    yield picture()
    time.sleep(0.3)
    os._exit(9)


def standing():
    yield "a camera that shows the same picture"
    while True:
        yield picture()
        time.sleep(0.05)


def refusing():
    raise LookupError("no")
    yield


def broken():
    yield "a camera whose driver fails"
    raise RuntimeError("ioctl")
