"""Reading ahead: the next blocks are made by a thread while the last one is still being worked on."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
END: Any = object()


def prefetch(items: Iterator[T], count: int = 4) -> Iterator[T]:
    """The same items in the same order, up to ``count`` of them made early. What they raise is raised here.

    Leaving early waits for the item that is being made, and makes no other.
    """
    pool = ThreadPoolExecutor(1)
    try:
        early = deque(pool.submit(next, items, END) for _ in range(count + 1))
        while (item := early.popleft().result()) is not END:
            early.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
