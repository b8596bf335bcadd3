"""Processes that decode are forked from a server that has imported all that they need, and done nothing else.

A fork of the main process would have half of its threads, and a new interpreter would import for a second or more.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType

from pipeline.media.picture import TRANSFORMS


def context(pictures: bool) -> ForkServerContext:
    """Where such processes are made; those that decode ``pictures`` need torch."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["pipeline.batch.decoding", *([TRANSFORMS] if pictures else [])])
    return found


def start_server(pictures: bool) -> None:
    """Begin to import, while this process does what it needs itself."""
    context(pictures)
    with hide_main():
        forkserver.ensure_running()


@contextmanager
def hide_main() -> Iterator[None]:
    """Processes that start meanwhile know where this package is, and not which program this is.

    Each would import that again: 0.1 s and 20 MB; beneath Ray, 0.3 s and 50 MB. And the server, of which they are
    copies, would not find the package from other folders (before Python 3.12.8), so that each of them would import all
    that it needs, for pictures torch: 2 s and 370 MB.
    """
    root, path = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
    main = sys.modules["__main__"]
    os.environ["PYTHONPATH"] = root if path is None else root + os.pathsep + path
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
