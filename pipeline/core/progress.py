"""A progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def bar(
    items: Iterable[T], title: str, total: int | None = None, done: int = 0, note: Callable[[float], str] | None = None
) -> Iterator[T]:
    """Yield the items and show how many are done. ``total``: if they have no length; ``done``: before the first;
    ``note``: what to say beside, so many seconds after the first.
    """
    count = len(items) if isinstance(items, Sized) else total
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task(title, total=count, completed=done, note="")
        for item in items:
            yield item
            shown.update(task, advance=1, note=note(shown.tasks[task].elapsed or 1e-9) if note else "")
