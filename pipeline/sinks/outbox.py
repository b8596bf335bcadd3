"""Sinks that hand events to something slow: a queue of limited length, and threads that work it off."""

import sys
import threading
import time
from collections import deque

from pipeline.core.text import clean
from pipeline.sinks.sink import Row, Sink

SLACK = 0.5  # seconds that threads have, beyond the grace, to notice that it is over


class Outbox(Sink):
    """Base of such sinks: a subclass writes ``deliver``. Nothing that happens in there ever holds up the stream: when
    the queue is full, the oldest event is dropped. Those that were not delivered are counted and told in the end.
    """

    def __init__(self, queue: int, threads: int, grace: float) -> None:
        """At most ``queue`` events wait, ``threads`` are delivered at a time; in the end there are ``grace`` seconds
        for what is left.
        """
        super().__init__()
        self.limit, self.threads, self.grace = queue, threads, grace
        self.waiting: deque[Row] = deque()
        self.changed = threading.Condition()
        self.number = self.delivered = 0
        self.lost = 0  # events dropped or given up
        self.reason = ""  # the last one
        self.working: list[threading.Thread] = []
        self.until = float("inf")  # on time.monotonic
        self.ended = False

    def deliver(self, row: Row) -> str:
        """Deliver an event before ``self.until``; '' or why it could not be. Runs in a thread of its own."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The grace is over: let go of what is being delivered."""

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Start the threads."""
        super().start(name, labels, rate, hop)
        for _ in range(self.threads):
            self.working.append(threading.Thread(target=self.work, daemon=True))
            self.working[-1].start()

    def event(self, row: Row) -> None:
        """Queue an event."""
        with self.changed:
            self.number += 1
            if len(self.waiting) >= self.limit:
                self.waiting.popleft()
                self.lost, self.reason = self.lost + 1, "the queue was full"
            self.waiting.append({"type": "event", "stream": self.name, "number": self.number} | row)
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
                self.lost, self.reason = self.lost + bool(reason), reason or self.reason

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end; for ``deliver``."""
        end = time.monotonic() + seconds
        with self.changed:
            while (left := min(end, self.until) - time.monotonic()) > 0:
                self.changed.wait(left)

    def close(self) -> None:
        """Give what is left the grace, and tell what was not delivered."""
        if self.ended or not self.working:
            return
        with self.changed:
            self.ended, self.until = True, time.monotonic() + self.grace
            self.changed.notify_all()
        self.join(self.until)
        self.cancel()
        self.join(self.until + SLACK)
        with self.changed:
            missing = self.number - self.delivered
            reason = self.reason or "the time was over"
        if missing:
            print(f"warning: {clean(self.told(missing, reason))}", file=sys.stderr)

    def join(self, until: float) -> None:
        """Wait for the threads."""
        for thread in self.working:
            thread.join(max(0.0, until - time.monotonic()))

    def told(self, missing: int, reason: str) -> str:
        """What to say of those that are missing."""
        return f"{missing} of {self.number} events were not delivered (the last: {reason})"
