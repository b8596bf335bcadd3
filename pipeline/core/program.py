"""How a program speaks and ends: warnings in a line, an error that a user can cause as one message and an exit code."""

import os
import sys
import warnings
from collections.abc import Callable

from pipeline.core.errors import UNWRITABLE, UserError
from pipeline.core.text import clean

LINE = "\n"  # messages may have several


def replace_closed_streams() -> None:
    """Standard streams that the caller has closed: words for people go nowhere, and no file that is opened later gets
    their numbers. Rows for programs are refused (``Journal``).
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115


def print_warnings() -> None:
    """Warnings go to standard error, control characters spelt out."""
    warnings.showwarning = lambda message, *_: print(f"warning: {clean(str(message), LINE)}", file=sys.stderr)


def guard(job: Callable[[], int]) -> int:
    """Run a job; its exit code, or that of its error."""
    try:
        return job()
    except UserError as error:
        return fail(str(error), error.exit_code)
    except BrokenPipeError:
        return UNWRITABLE  # the reader of a pipe is gone
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return fail(f"cannot write {error.filename or 'the output'}: {reason}", UNWRITABLE)


def fail(message: str, code: int) -> int:
    """Print an error; the code."""
    print(f"error: {clean(message, LINE)}", file=sys.stderr)
    return code
