"""A progress bar, on terminals only."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def bar(items: Sequence[T] | Iterable[T], title: str, total: int | None = None, done: int = 0) -> Iterable[T]:
    """Yield the items and show how many are done. ``total``: if they have no length; ``done``: before the first."""
    console = Console(stderr=True)
    return track(items, title, total, done, console=console, transient=True, disable=not sys.stderr.isatty())
