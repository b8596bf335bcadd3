"""What a process that decodes does: files in, chunks out, under limits that the system enforces.

A decoder is a large piece of C that is fed by strangers. So it runs where it can do no harm: without the right to write
a byte to any file, with so much memory, so much time without a result, and nothing to say but bytes of samples and a
few words, which the other side checks (``decoders.py``). It ends with its parent.

Requests are JSON: ``{path, start, end}``. Answers begin with a letter: ``r`` once, when it is ready; ``x`` a chunk (its
arrays, one after another); ``f`` info (JSON: seconds, warnings) that ends a file; ``e`` an error (JSON:
code, reason) that ends it.
"""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from math import isinf
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.files import Limits
from pipeline.core.errors import MediaError
from pipeline.media.chunks import open_chunks
from pipeline.media.info import AudioInfo, AVInfo, MediaInfo
from pipeline.media.input_spec import Arrays, InputSpec

READY, CHUNK, END, ERROR = b"r", b"x", b"f", b"e"
MAX_OPEN_FILES = 32
SPARE_SECONDS = 5  # of work beyond the parent's patience, should there be no parent


def serve(requests: Connection, answers: Connection, spec: InputSpec, limits: Limits) -> None:
    """Decode what is asked for, one after another, until the parent has gone."""
    if spec.picture:
        import torch

        torch.set_num_threads(1)  # pictures are resized by it
        spec.picture.fit(np.zeros((1, 1, 3), np.uint8))  # imports what needs a temporary file
    if spec.series:
        with suppress(ImportError):
            import_module("pyarrow.parquet")
    confine(limits)
    try:
        answers.send_bytes(READY)
        while True:
            request = json.loads(requests.recv_bytes())
            for message in answers_to(request, spec, limits):
                answers.send_bytes(message)
                renew_cpu_limit(limits)
    except (EOFError, OSError):
        os._exit(0)  # without asking libraries, which may be broken by now


def confine(limits: Limits) -> None:
    """From now on, this process writes no file, prints nothing, and has so much memory."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent's affair
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    lower_limit(resource.RLIMIT_CORE, 0)
    lower_limit(resource.RLIMIT_FSIZE, 0)
    lower_limit(resource.RLIMIT_AS, address_space() + limits.memory)
    lower_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    renew_cpu_limit(limits)


def lower_limit(kind: int, most: int) -> None:
    """Set a limit, if it is below the one that holds already. Not every system knows every limit."""
    soft, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):
        if soft == resource.RLIM_INFINITY or most < soft:
            resource.setrlimit(kind, (most, hard))


def address_space() -> int:
    """Bytes that this process has mapped."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 4 << 30  # about what the libraries map


def renew_cpu_limit(limits: Limits) -> None:
    """So many seconds of work until the next result, or the system ends this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = usage.ru_utime + usage.ru_stime
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent + limits.patience + SPARE_SECONDS), hard))


def answers_to(request: dict[str, Any], spec: InputSpec, limits: Limits) -> Iterator[bytes]:
    """The answers for one file; the last of them ends it, whatever the decoder does."""
    try:
        info, chunks = open_chunks(request["path"], spec, request["start"], request["end"])
        check_size(info, limits)
        total = 0
        for chunk in chunks:
            total += spec.ticks(chunk)
            if total > limits.longest * spec.rate:
                raise MediaError("limit_duration", f"longer than {limits.longest:g} s")
            check_size(info, limits)
            yield b"".join([CHUNK, *(array.tobytes() for array in chunk)])
        yield END + json.dumps({"seconds": info.seconds, "warnings": info.warnings}).encode()
    except MediaError as error:
        yield error_message(error.code, str(error.args[0]))
    except MemoryError:
        yield error_message("limit_memory", f"it takes more than {limits.memory >> 20} MiB")
    except Exception as error:  # a decoder's own failure is this file's answer, not the end of the run
        yield error_message("unreadable", f"{type(error).__name__}: {error}")


def error_message(code: str, reason: str) -> bytes:
    return ERROR + json.dumps({"code": code, "reason": reason}).encode()


def check_size(info: MediaInfo, limits: Limits) -> None:
    """MediaError for sound whose header claims more than may be decoded, or that turned out to be more."""
    sound = info.sound if isinstance(info, AVInfo) else info
    if isinstance(sound, AudioInfo):
        frames = max(sound.decoded, 0 if isinf(sound.slack) else sound.frames or 0)
        if frames * sound.channels * 4 > limits.largest or frames > limits.longest * sound.rate:
            hours = frames / sound.rate / 3600
            raise MediaError("limit_duration", f"{hours:.1f} h of {sound.channels} channels at {sound.rate} Hz")


def chunk_of(message: bytes, spec: InputSpec) -> Arrays:
    """The arrays of a chunk's message. ValueError if it is none."""
    sizes = [track.grain_bytes for track in spec.tracks]
    grains, rest = divmod(len(message) - len(CHUNK), sum(sizes))
    if rest:
        raise ValueError(f"a chunk of {len(message)} bytes")
    found, at = list[NDArray[Any]](), len(CHUNK)
    for track, size in zip(spec.tracks, sizes, strict=True):
        array: NDArray[Any] = np.frombuffer(message[at : at + grains * size], track.kind)
        found.append(array.reshape(-1, *track.shape))
        at += grains * size
    return tuple(found)
