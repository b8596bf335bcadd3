"""Ctrl-C and SIGTERM at a moment that harms nothing."""

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")


class Interrupts:
    """Within this context a signal is obeyed only under ``welcome`` (while waiting for input); one that comes while
    answers are computed and written is obeyed at the next. A second one is obeyed at once.

    Outside the main thread, and for signals that are ignored or left to the system, it does nothing.
    """

    def __init__(self) -> None:
        self.before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self.came: int | None = None
        self.waiting = self.obeyed = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """A signal."""
        at_once = self.waiting or self.came is not None
        self.came = number
        if at_once:
            self.obeyed = True
            self.before[number](number, frame)

    @contextmanager
    def welcome(self) -> Iterator[None]:
        """A stretch in which signals are obeyed, and before it those that came."""
        self.waiting = True
        try:
            if self.came is not None and not self.obeyed:
                self.obeyed = True
                self.before[self.came](self.came, None)
            yield
        finally:
            self.waiting = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self.before[number] = handler
                    signal.signal(number, self.receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if isinstance(error, SystemError) and self.came is not None:  # compiled code was interrupted: numba makes that
            self.before[self.came](self.came, None)


def welcoming(interrupts: Interrupts, items: Iterator[Item]) -> Generator[Item]:
    """The same items, with signals obeyed while waiting for the next, and not while it is worked on."""
    try:
        while True:
            with interrupts.welcome():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        if isinstance(items, Generator):
            items.close()
