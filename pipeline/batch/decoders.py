"""A pool of processes that decode (``decoding.py``): any of them may die or hang, and that is one file's answer.

What a process says is checked and never unpickled. A file whose process died is tried once more in a new one, so that
it does not answer for what an earlier file had broken.
"""

import fcntl
import json
import re
import signal
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Self, TypeAlias

from pipeline.batch.decoding import CHUNK, ERROR, FACTS, READY, Limits, chunk_of, serve
from pipeline.batch.listing import Entry
from pipeline.batch.nursery import bare, context
from pipeline.core.errors import MediaError, UserError
from pipeline.media.input_spec import Arrays, InputSpec

AHEAD, FAR = 2, 16  # files that a process is given before it has answered: at first, and if they are short
PENDING = 4000  # bytes of requests, which fit into any pipe: who is answering does not read
SHORT = 0.1  # seconds that such a file takes it at most
FILES = 2_000  # that a process decodes before another takes its place: what libraries leak goes with it
MESSAGE = 256 << 20  # bytes of one at most
DYING = 0.2  # seconds
STOPPED = 1.0  # seconds that a wait is never late by itself
BIRTHS = 3  # processes that may die one after another before they are ready
STARTING = 120.0  # seconds; a busy machine starts processes slowly
PIPE = 1 << 20  # bytes that a process may be ahead
REASON = 300  # characters that are kept
CODE = re.compile("[a-z0-9_]{1,40}")


@dataclass(frozen=True)
class Ended:
    """A file has been decoded: seconds of it, and the codes of what is doubtful."""

    seconds: float
    warnings: list[str]


class Again:
    """What was said of a file is void; it will be said anew."""


Message: TypeAlias = Arrays | Ended | Again | MediaError
Asked: TypeAlias = tuple[int, Entry]


@dataclass(eq=False)
class Worker:
    """A process, the files it has been given (the first is in work), and how many they were."""

    process: Any
    requests: Connection
    answers: Connection
    asked: deque[Asked] = field(default_factory=deque)
    given: int = 0
    ready: bool = False
    ahead: int = AHEAD  # how many files it may have at a time
    since: float = 0.0  # when it was at its first one
    heard: float = field(default_factory=time.monotonic)  # when it said something, or was given something to do
    ended: bool = False
    code: int | None = None  # with which it ended; negative: by this signal

    def ask(self, number: int, entry: Entry) -> None:
        """Give it a file. If it has died, that will be found when it is listened to."""
        if not self.asked:
            self.since = time.monotonic()
            self.heard = self.since if self.ready else self.heard
        self.asked.append((number, entry))
        self.given += 1
        with suppress(OSError):
            self.requests.send_bytes(request(entry))

    def fits(self, entry: Entry) -> bool:
        """Whether one more request will not block us. One alone is read at once, however long it is."""
        return not self.asked or sum(len(request(one)) + 8 for _, one in [*self.asked, (0, entry)]) <= PENDING

    def end(self) -> None:
        """End it, if it has not been."""
        if self.ended:
            return
        self.ended = True
        self.requests.close()
        self.answers.close()
        self.process.join(DYING)  # by itself, when it is idle or was dead already
        self.process.kill()
        self.process.join()
        self.code = self.process.exitcode
        self.process.close()


class Decoders:
    """``workers`` processes at the files of a listing. Memory is bounded by who asks for the ``next`` message."""

    def __init__(self, entries: Iterable[Asked], spec: InputSpec, workers: int, limits: Limits) -> None:
        """``entries`` with their numbers, in order; the processes start now."""
        self.entries, self.spec, self.limits = iter(entries), spec, limits
        self.context = context()
        self.following: Asked | None = None  # the next entry, while nobody can take it
        self.again: deque[Asked] = deque()  # to be tried once more
        self.suspects: set[int] = set()
        self.stillborn = 0  # processes in a row that ended before they were ready
        self.workers: list[Worker] = []
        try:
            for _ in range(workers):
                self.workers.append(self.start())
        except BaseException:
            self.close()
            raise

    def start(self) -> Worker:
        """A new process."""
        requests, give = self.context.Pipe(duplex=False)
        take, answers = self.context.Pipe(duplex=False)
        widen(take)
        process = self.context.Process(target=serve, args=(requests, answers, self.spec, self.limits), daemon=True)
        with bare():
            process.start()
        requests.close()
        answers.close()
        return Worker(process, give, take)

    def current(self) -> list[int]:
        """Numbers of the files in work."""
        self.employ()
        return [worker.asked[0][0] for worker in self.workers if worker.asked]

    def next(self, wait_for: bool = True) -> tuple[Asked, Message] | None:
        """What is said next: of which file, and a chunk, its end or its error. None when all have ended, or without
        ``wait_for``: when nothing has been said.
        """
        while True:
            self.employ()
            busy = [worker for worker in self.workers if worker.asked]
            if not busy:
                return None
            before, most = time.monotonic(), max(0.0, min(map(self.due, busy)) - time.monotonic())
            said = wait([worker.answers for worker in busy], most if wait_for else 0)
            if not said and time.monotonic() - before > most + STOPPED:  # we were stopped, and they with us
                for worker in busy:
                    worker.heard = time.monotonic()
                continue
            for worker in busy:
                late = not said and time.monotonic() >= self.due(worker)
                if worker.answers in said or late:
                    self.workers.append(self.workers.pop(self.workers.index(worker)))  # the others' turn is next
                    if found := self.listen(worker, late):
                        return found
            if not said and not wait_for:
                return None

    def due(self, worker: Worker) -> float:
        """When a process will have been silent for too long."""
        return worker.heard + (self.limits.patience if worker.ready else STARTING)

    def employ(self) -> None:
        """Give everyone something to do. A suspect is alone with a new process; until it has one, nobody gets more."""
        for worker in list(self.workers):
            if not worker.asked and worker.given >= (1 if self.again else FILES):
                worker = self.replaced(worker)
            if self.again and not worker.asked:
                worker.ask(*self.again.popleft())
        while not self.again and (ready := [worker for worker in self.workers if self.may_have(worker)]):
            for worker in ready:  # one each, so that everybody has something to do while there is little
                self.following = self.following or next(self.entries, None)
                if self.following is None:
                    return
                if worker.fits(self.following[1]):
                    worker.ask(*self.following)
                    self.following = None
            if self.following:
                return  # it waits until somebody has answered

    def may_have(self, worker: Worker) -> bool:
        """Whether a process may be given one more file: not while it is at one that may have ended another."""
        alone = bool(worker.asked) and worker.asked[0][0] in self.suspects
        return len(worker.asked) < worker.ahead and worker.given < FILES and not alone

    def replaced(self, worker: Worker) -> Worker:
        """Another process in the place of one that is at its end, with the files that it still has."""
        worker.end()
        fresh = self.workers[self.workers.index(worker)] = self.start()
        for asked in worker.asked:
            fresh.ask(*asked)
        return fresh

    def listen(self, worker: Worker, late: bool) -> tuple[Asked, Message] | None:
        """One message of a process, or the news of its death. UserError if none can even start."""
        try:
            if late:
                raise TimeoutError
            message = worker.answers.recv_bytes(MESSAGE)
            if not worker.ready:
                worker.ready, worker.heard = message == READY, time.monotonic()
                self.stillborn = 0 if worker.ready else self.stillborn
                return None
            found = understood(message, self.spec)
        except Exception:  # it is gone, or says what nobody would
            if not worker.ready:
                self.begin_again(worker)
                return None
            silent = MediaError("timeout", f"nothing came within {self.limits.patience:g} s")
            return self.bury(worker, silent if late else None)
        worker.heard = time.monotonic()
        asked = worker.asked[0]
        if not isinstance(found, tuple):
            worker.asked.popleft()
            worker.ahead, worker.since = FAR if worker.heard - worker.since < SHORT else AHEAD, worker.heard
            self.suspects.discard(asked[0])
        return asked, found

    def begin_again(self, worker: Worker) -> None:
        """Another process for one that died before it could begin. UserError if that happens again and again."""
        self.stillborn += 1
        if self.stillborn >= BIRTHS:
            worker.end()
            raise UserError(f"processes that decode cannot start (exit code {worker.code})")
        self.replaced(worker)

    def bury(self, worker: Worker, verdict: MediaError | None) -> tuple[Asked, Message]:
        """End a process. Its first file is tried once more, or has its error; the others are given to a new one."""
        suspect = worker.asked.popleft()
        self.replaced(worker)
        if verdict is None and suspect[0] not in self.suspects:
            self.suspects.add(suspect[0])
            self.again.append(suspect)
            return suspect, Again()
        self.suspects.discard(suspect[0])
        return suspect, verdict or fallen(worker.code)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.end()
        self.workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(entry: Entry) -> bytes:
    """What a process is asked."""
    return json.dumps({"path": entry.path, "start": entry.start, "end": entry.end}).encode()


def understood(message: bytes, spec: InputSpec) -> Arrays | Ended | MediaError:
    """A message that is what it should be. ValueError, KeyError or TypeError if it is not."""
    kind = message[:1]
    if kind == CHUNK:
        return chunk_of(message, spec)
    said = json.loads(message[1:])
    if kind == FACTS:
        seconds = float(said["seconds"])
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{seconds} seconds")
        return Ended(seconds, [code for code in said["warnings"] if CODE.fullmatch(code)])
    if kind != ERROR or not CODE.fullmatch(said["code"]):
        raise ValueError(f"a message of kind {kind!r}")
    return MediaError(said["code"], str(said["reason"])[:REASON])


def fallen(code: int | None) -> MediaError:
    """The error of a file whose process died twice."""
    number = -(code or 0)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
    if number == signal.SIGXCPU:
        return MediaError("timeout", "nothing came for so many seconds of work")
    return MediaError("crashed", f"the process that decoded it died ({name})")


def widen(pipe: Connection) -> None:
    """Let a process be ahead by more than the 64 KiB that a pipe has, where the system knows how."""
    with suppress(OSError):
        fcntl.fcntl(pipe.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 0), PIPE)
