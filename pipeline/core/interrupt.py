"""Ctrl-C while a program is imported, which takes a second: one line, and no traceback.

This module imports nothing slow. While Python itself starts, before it, the signal cannot be caught.
"""

import os
import signal

INTERRUPTED = 130  # exit code


def stop(*_: object) -> None:
    """End the process at once."""
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def hold() -> None:
    """Let Ctrl-C stop the process until ``release``, unless a shell has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def release() -> None:
    """Let Ctrl-C be an exception again."""
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
