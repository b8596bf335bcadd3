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
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

from pipeline.batch.decoding import CHUNK, END, ERROR, READY, chunk_of, serve
from pipeline.batch.files import Limits
from pipeline.batch.forkserver import context, hide_main
from pipeline.batch.listing import Entry
from pipeline.core.errors import MediaError, UserError
from pipeline.media.input_spec import Arrays, InputSpec

QUEUED_FILES, QUEUED_SHORT_FILES = 2, 16  # that a process is given before it has answered
SHORT_SECONDS = 0.1  # that a short file takes a process at most
QUEUED_BYTES = 4000  # of requests, which fit into any pipe: a process that is answering does not read
MAX_FILES = 2_000  # that a process decodes before another takes its place: what libraries leak goes with it
MAX_MESSAGE_BYTES = 256 << 20
EXIT_SECONDS = 0.2  # for a process to end by itself
STOPPED_SECONDS = 1.0  # that a wait is never late by itself
START_SECONDS = 120.0  # for a process to be ready: a busy machine starts processes slowly
MAX_FAILED_STARTS = 3  # in a row
PIPE_BYTES = 1 << 20  # that a process may be ahead
MAX_REASON = 300  # characters
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
    queue: int = QUEUED_FILES  # how many files it may have at a time
    since: float = 0.0  # when it began with its first one
    heard: float = field(default_factory=time.monotonic)  # when it said something, or was given something to do
    exit_code: int | None = None  # negative: the signal that ended it

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
        return not self.asked or sum(len(request(one)) + 8 for _, one in [*self.asked, (0, entry)]) <= QUEUED_BYTES

    def end(self) -> None:
        """End it, if it has not been."""
        if self.exit_code is not None:
            return
        self.requests.close()
        self.answers.close()
        self.process.join(EXIT_SECONDS)  # by itself, when it is idle or was dead already
        self.process.kill()
        self.process.join()
        self.exit_code = self.process.exitcode
        self.process.close()


class Decoders:
    """``workers`` processes at the files of a listing. Memory is bounded by who asks for the ``next`` message."""

    def __init__(self, entries: Iterable[Asked], spec: InputSpec, workers: int, limits: Limits) -> None:
        """``entries`` with their numbers, in order; the processes start now."""
        self.entries, self.spec, self.limits = iter(entries), spec, limits
        self.context = context(bool(spec.picture))
        self.waiting: deque[Asked] = deque()  # entries that were drawn, and that no process has
        self.retried: set[int] = set()  # files whose process died: each is tried again, alone in a new process
        self.failed_starts = 0  # in a row
        self.workers = [self.start() for _ in range(workers)]  # they end by themselves once their pipes are closed

    def start(self) -> Worker:
        requests, give = self.context.Pipe(duplex=False)
        take, answers = self.context.Pipe(duplex=False)
        with suppress(OSError):  # not every system knows how
            fcntl.fcntl(take.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 0), PIPE_BYTES)
        process = self.context.Process(target=serve, args=(requests, answers, self.spec, self.limits), daemon=True)
        with hide_main():
            process.start()
        requests.close()
        answers.close()
        return Worker(process, give, take)

    def current(self) -> list[int]:
        """Numbers of the files in work."""
        self.assign()
        return [worker.asked[0][0] for worker in self.workers if worker.asked]

    def next(self, wait_for: bool = True) -> tuple[Asked, Message] | None:
        """What is said next: of which file, and a chunk, its end or its error. None when all have ended, or without
        ``wait_for``: when nothing has been said.
        """
        while True:
            self.assign()
            busy = [worker for worker in self.workers if worker.asked]
            if not busy:
                return None
            before, most = time.monotonic(), max(0.0, min(map(self.due, busy)) - time.monotonic())
            said = wait([worker.answers for worker in busy], most if wait_for else 0)
            if not said and time.monotonic() - before > most + STOPPED_SECONDS:  # we were stopped, and they with us
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
        return worker.heard + (self.limits.patience if worker.ready else START_SECONDS)

    def assign(self) -> None:
        """Give files to all processes that may have one more: one each, so that all have something to do."""
        for worker in list(self.workers):
            if not worker.asked and worker.given >= MAX_FILES:
                self.replace(worker)
        while free := [worker for worker in self.workers if self.may_have(worker)]:
            for worker in free:
                if not self.waiting:
                    self.waiting.extend(islice(self.entries, 1))
                if not self.waiting or not worker.fits(self.waiting[0][1]):
                    return  # the entry waits until a process has answered
                worker.ask(*self.waiting.popleft())

    def may_have(self, worker: Worker) -> bool:
        """Whether a process may be given one more file: not while it is at one that ended another process."""
        alone = bool(worker.asked) and worker.asked[0][0] in self.retried
        return len(worker.asked) < worker.queue and worker.given < MAX_FILES and not alone

    def replace(self, worker: Worker) -> None:
        """Another process in the place of one, with the files that it still has."""
        worker.end()
        fresh = self.workers[self.workers.index(worker)] = self.start()
        for asked in worker.asked:
            fresh.ask(*asked)

    def listen(self, worker: Worker, late: bool) -> tuple[Asked, Message] | None:
        """One message of a process, or the news of its death. UserError if none can even start."""
        try:
            if late:
                raise TimeoutError
            message = worker.answers.recv_bytes(MAX_MESSAGE_BYTES)
            if not worker.ready:
                worker.ready, worker.heard = message == READY, time.monotonic()
                self.failed_starts = 0 if worker.ready else self.failed_starts
                return None
            found = parse_message(message, self.spec)
        except Exception:  # it is gone, or sends what it never should
            return self.handle_death(worker, late)
        worker.heard = time.monotonic()
        asked = worker.asked[0]
        if not isinstance(found, tuple):
            worker.asked.popleft()
            short = worker.heard - worker.since < SHORT_SECONDS
            worker.queue, worker.since = QUEUED_SHORT_FILES if short else QUEUED_FILES, worker.heard
            self.retried.discard(asked[0])
        return asked, found

    def handle_death(self, worker: Worker, late: bool) -> tuple[Asked, Message] | None:
        """End a process that died or hangs. Its first file is tried once more, or has its error; the others wait.

        UserError if process after process dies before it is ready.
        """
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                worker.end()
                raise UserError(f"processes that decode cannot start (exit code {worker.exit_code})")
            self.replace(worker)
            return None
        suspect, *others = worker.asked
        retry = not late and suspect[0] not in self.retried
        worker.asked = deque([suspect] if retry else [])
        self.waiting.extendleft(reversed(others))
        self.replace(worker)
        if retry:
            self.retried.add(suspect[0])
            return suspect, Again()
        self.retried.discard(suspect[0])
        if late:
            return suspect, MediaError("timeout", f"nothing came within {self.limits.patience:g} s")
        return suspect, death_error(worker.exit_code)

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers = []


def request(entry: Entry) -> bytes:
    """A request, as ``decoding.py`` describes it."""
    return json.dumps({"path": entry.path, "start": entry.start, "end": entry.end}).encode()


def parse_message(message: bytes, spec: InputSpec) -> Arrays | Ended | MediaError:
    """A message that is what it should be. ValueError, KeyError or TypeError if it is not."""
    kind = message[:1]
    if kind == CHUNK:
        return chunk_of(message, spec)
    said = json.loads(message[1:])
    if kind == END:
        seconds = float(said["seconds"])
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{seconds} seconds")
        return Ended(seconds, [code for code in said["warnings"] if CODE.fullmatch(code)])
    if kind != ERROR or not CODE.fullmatch(said["code"]):
        raise ValueError(f"a message of kind {kind!r}")
    return MediaError(said["code"], str(said["reason"])[:MAX_REASON])


def death_error(exit_code: int | None) -> MediaError:
    """The error of a file whose process died twice."""
    number = -(exit_code or 0)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {exit_code}"
    if number == signal.SIGXCPU:
        return MediaError("timeout", "nothing came for so many seconds of work")
    return MediaError("crashed", f"the process that decoded it died ({name})")
