"""A bar while something takes long: on a terminal, and nowhere else, as a log has no use for it."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def bar(items: Sequence[T] | Iterable[T], title: str, total: int | None = None, done: int = 0) -> Iterable[T]:
    """The items, one after another, of which so many are ``done`` before; ``total`` where they have no length."""
    console = Console(stderr=True)
    return track(items, title, total, done, console=console, transient=True, disable=not sys.stderr.isatty())
