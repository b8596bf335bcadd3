"""Reading ahead: the next blocks are made by a thread while the last one is still being worked on."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


def ahead(items: Iterator[T], count: int = 4) -> Iterator[T]:
    """The same items in the same order, up to ``count`` of them made early. What they raise is raised here.

    Leaving early ends the thread: it sees that nobody takes its next item.
    """
    waiting: queue.Queue[Any] = queue.Queue(count)
    left = threading.Event()

    def offer(item: Any) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer(item):
                    return
            offer(END)
        except BaseException as error:  # whatever it is, it belongs to who asked for the items
            offer(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join()
