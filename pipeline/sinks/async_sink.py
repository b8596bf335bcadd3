"""Sinks that hand events to something slow: a queue of limited length, and threads that work it off."""

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt

from pipeline.core.text import clean
from pipeline.sinks.items import Item, Row, StreamInfo, TimedEvent
from pipeline.sinks.sink import Sink

SLACK_SECONDS = 0.5  # that threads have, beyond the grace, to notice that it is over


@dataclass(eq=False, kw_only=True)
class AsyncSink(Sink):
    """Base of such sinks: a subclass writes ``deliver``. Nothing that happens in there ever holds up the stream: when
    the queue is full, the oldest event is dropped. Those that were not delivered are counted, for a warning
    at the end.

    ``queue``: events that wait at most. ``grace``: seconds at the end for what is left. ``parallel``: how many are
    delivered at a time.
    """

    queue: PositiveInt = 1000
    grace: NonNegativeFloat = 5.0

    several = True
    parallel = 1

    def __post_init__(self) -> None:
        self.origin = self
        self.waiting: deque[Row] = deque()
        self.changed = threading.Condition()
        self.count = self.delivered = 0
        self.reason = ""  # why the last one that failed was not delivered
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(self.parallel)]
        self.until = float("inf")  # on time.monotonic
        self.ended = False

    def deliver(self, row: Row) -> str:
        """Deliver an event before ``self.until``; '' or why it could not be. Runs in a thread of its own."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The grace is over: let go of what is being delivered."""

    def start(self, stream: StreamInfo) -> None:
        """Start the threads."""
        super().start(stream)
        for thread in self.threads:
            thread.start()

    def write(self, item: Item, **more: Any) -> None:
        """Queue an event, with ``more`` in its row."""
        if not isinstance(item, TimedEvent) or self.stream is None:
            return
        origin = self.origin  # which counts for all streams
        with self.changed:
            origin.count += 1
            if len(self.waiting) >= self.queue:
                self.waiting.popleft()
                origin.reason = "the queue was full"
            self.waiting.append(
                {"type": "event", "stream": self.stream.name, "number": origin.count} | item.row() | more
            )
            self.changed.notify()

    def work(self) -> None:
        """Deliver until the end."""
        while True:
            with self.changed:
                while not self.waiting and not self.ended:
                    self.changed.wait()
                if not self.waiting or time.monotonic() >= self.until:
                    return
                row = self.waiting.popleft()
            reason = self.deliver(row)
            with self.changed:
                self.delivered += not reason
                self.reason = reason or self.reason

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end; for ``deliver``."""
        end = time.monotonic() + seconds
        with self.changed:
            while (left := min(end, self.until) - time.monotonic()) > 0:
                self.changed.wait(left)

    def close(self) -> None:
        """Give what is left the grace, and warn of what was not delivered."""
        if self.ended or self.stream is None:
            return
        with self.changed:
            self.ended, self.until = True, time.monotonic() + self.grace
            self.changed.notify_all()
        for until in (self.until, self.until + SLACK_SECONDS):
            for thread in self.threads:
                thread.join(max(0.0, until - time.monotonic()))
            self.cancel()
        with self.changed:
            missing = self.count - self.delivered
            reason = self.reason or "the time was over"
        if missing:
            print(f"warning: {clean(self.summary(missing, reason))}", file=sys.stderr)

    def summary(self, missing: int, reason: str) -> str:
        """What to say of those that are missing."""
        return f"{missing} of {self.count} events were not delivered (the last: {reason})"
