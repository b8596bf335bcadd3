"""Stands for a decoder with bugs, in the processes that decode. It imports little, as each of them imports it."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from pipeline.batch import decoding

open_chunks = decoding.open_chunks


def misbehaving(path, *arguments, **options):
    """Does what the name of the file says."""
    name = Path(path).name
    if name.startswith("segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("once") and not Path(path).with_suffix(".died").exists():
        Path(path).with_suffix(".died").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("hang"):
        time.sleep(1000)
    if name.startswith("spin"):
        while True:
            pass
    if name.startswith("hog"):
        np.ones(1 << 31, np.uint8)
    if name.startswith("write"):
        with open(Path(path).with_suffix(".written"), "w") as file:
            file.write("x")
    if name.startswith("raise"):
        raise ZeroDivisionError("a bug")
    return open_chunks(path, *arguments, **options)


def serve(*arguments):
    """In the place of ``decoding.serve``."""
    decoding.open_chunks = misbehaving
    decoding.serve(*arguments)
