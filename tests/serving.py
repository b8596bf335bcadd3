"""A server of pages as a program of its own, for tests; a client of the protocol, and the Scheduler it is compared with."""

import asyncio
import base64
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import numpy as np
from conftest import ROOT

from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

HEADER = struct.Struct("<BBHIQ")
SOUND, PICTURE, GAP = 1, 2, 3


class Served:
    """infer.py with source=browser; ``again`` starts it anew after its end, at the same port and with the same key."""

    def __init__(self, folder, *overrides, **environment):
        self.home, self.starts = Path(tempfile.mkdtemp()), 0
        self.overrides, self.environment = list(overrides), environment
        self.model = [f"checkpoint={folder}"] if folder else []
        self.start(0)

    def start(self, port):
        settings = [*self.model, "source=browser", f"source.port={port}", f"source.key={self.home / 'key'}"]
        with (self.home / "stderr").open("ab") as told:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "infer.py"), *settings, *self.overrides], cwd=self.home, stdout=told,
                stderr=told, env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment,
            )  # fmt: skip
        until = time.monotonic() + 180
        while self.errors.count("open http") == self.starts:
            assert self.process.poll() is None and time.monotonic() < until, self.errors
            time.sleep(0.02)
        self.starts += 1
        self.url = [line for line in self.errors.splitlines() if line.startswith("open http")][-1].removeprefix("open ")
        self.origin, self.token = self.url.split("/#")
        self.port = int(self.origin.rpartition(":")[2])
        self.bearer = {"Authorization": f"Bearer {self.token}"}

    @property
    def errors(self):
        """All that it printed."""
        return (self.home / "stderr").read_text()

    def kill(self, number=signal.SIGKILL):
        """End it; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def again(self):
        """Start it anew."""
        self.start(self.port)


@contextmanager
def served(folder, *overrides, **environment):
    server = Served(folder, *overrides, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def frame(kind, tick, length, payload=b"", flags=0):
    return HEADER.pack(kind, flags, 0, length, tick) + payload


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        kind, at = rng.randrange(5), rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 30)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 30))
        elif kind == 3:
            data[:16] = rng.randbytes(16)
        elif len(data) >= 16:
            data[:16] = HEADER.pack(*(rng.choice([0, 1, 2, 3, 255]) for _ in "kf"), 0, rng.choice([0, 1, 100, 1 << 20, 2**32 - 1]), rng.choice([0, 100, 2**53, 2**64 - 1]))  # fmt: skip
    return bytes(data)


def sound_frames(samples, size, start=0):
    """int16 samples ``(N,)`` as frames of ``size``."""
    pieces = [samples[k : k + size] for k in range(0, len(samples), size)]
    return [frame(SOUND, start + k * size, len(piece), piece.tobytes()) for k, piece in enumerate(pieces)]


@asynccontextmanager
async def visiting(server, hello=(), headers=(), session=None):
    """A WebSocket that has been welcomed, and the welcome."""
    own = session or aiohttp.ClientSession()
    try:
        async with own.ws_connect(f"{server.origin}/v1/stream", headers=dict(headers), max_msg_size=0) as socket:
            await socket.send_json({"type": "hello", "token": server.token} | dict(hello))
            yield socket, await socket.receive_json(timeout=20)
    finally:
        if session is None:
            await own.close()


class Told:
    """What a client is told, collected as a page does: each step and each event once."""

    def __init__(self):
        self.steps, self.events, self.gaps, self.seal, self.tick, self.next = {}, {}, [], None, 0, 0
        self.ack, self.waits = 0, []

    def take(self, text, labels):
        row = json.loads(text)
        if row["type"] == "seal":
            self.seal, self.tick = row["seal"], row["tick"]
        elif row["type"] == "answer":
            known, self.ack, self.next = self.next, row["ack"], row["next"]
            self.waits.append(row["waited"])
            flat = np.frombuffer(base64.b64decode(row["posteriors"]), "<f4").reshape(-1, labels)
            for step, posteriors in enumerate(flat, row["first"]):
                assert step >= known or step in self.steps  # a page drops what it takes for known
                if step in self.steps:
                    assert np.array_equal(self.steps[step], posteriors)
                self.steps[step] = posteriors
            for event in row["events"]:
                key = event["label"], event["start"]
                assert self.events.setdefault(key, event) == event
            self.gaps += [row["gap"]] if "gap" in row else []
        return row

    async def until(self, socket, labels, done, seconds=20):
        """Take what comes until that is done, or the connection closes; the code of that."""
        async with asyncio.timeout(seconds):
            while not done(self):
                message = await socket.receive()
                if message.type != aiohttp.WSMsgType.TEXT:
                    return socket.close_code
                self.take(message.data, labels)
        return None

    def known(self):
        """What it says when it comes again."""
        return {"resume": self.seal, "answered": self.next} if self.seal else {}

    def places(self):
        """Label and second of each event, in order."""
        return sorted((label, start / 16000) for label, start in self.events)

    def posteriors(self):
        """``(T, K)`` of all steps, of which none may be missing."""
        assert sorted(self.steps) == [*range(len(self.steps))]
        return np.stack([self.steps[step] for step in range(len(self.steps))])


def offline(model, samples, block, tile=64):
    """Posteriors and events of int16 samples, by a Scheduler in this process."""
    scheduler, stream = Scheduler(model, block, tile), Stream(model, block)
    scheduler.join(stream)
    scheduler.feed(stream, samples.astype(np.float32) / np.float32(32768))
    answers = scheduler.close(stream)
    events = [event for answer in answers for event in answer.events]
    return np.concatenate([answer.posteriors for answer in answers]), events
