"""A program that is run for each event."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import PositiveFloat, PositiveInt

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.sinks.async_sink import AsyncSink
from pipeline.sinks.items import Row

PLACEHOLDERS = ["label", "start", "end", "peak", "score", "stream"]
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(eq=False)
class Command(AsyncSink):
    """The program gets each event in its arguments, without a shell: a label is always (a part of) one argument,
    whatever it holds. It writes to standard error, and reads nothing.

    ``run``: the program and its arguments, with places such as ``{label}``. After ``timeout`` seconds it is killed.
    """

    run: list[str] | None = None
    timeout: PositiveFloat = 30.0
    parallel: PositiveInt = 2
    queue: PositiveInt = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        run = self.run
        if not run:
            places = ", ".join(f"'{{{place}}}'" for place in PLACEHOLDERS)
            raise ConfigError(f"sink.command.run: is not set; give a list: [program, {places}]")
        for place in (place for text in run for place in PLACEHOLDER.findall(text)):
            if place not in PLACEHOLDERS:
                raise ConfigError(f"sink.command.run: there is no {{{place}}}{nearest(place, PLACEHOLDERS)}")
        if PLACEHOLDER.search(run[0]):
            raise ConfigError(f"sink.command.run: got the program {run[0]!r}; an event can only choose its arguments")
        if shutil.which(os.path.expanduser(run[0])) is None:
            raise ConfigError(f"sink.command.run: there is no program {run[0]!r} that can be run")
        self.arguments = [os.path.expanduser(run[0]), *run[1:]]
        self.running: set[subprocess.Popen[bytes]] = set()
        self.codes: Counter[str] = Counter()

    def deliver(self, row: Row) -> str:
        """Run the program, and count how it ended."""
        reason = self.run_for(row)
        with self.changed:
            self.codes[reason or "exit code 0"] += 1
        return reason

    def run_for(self, row: Row) -> str:
        """Run the program; '' or what went wrong."""
        program, *others = self.arguments
        command = [program, *(filled(text, row) for text in others)]
        try:  # without the lock, as a program may take long to start
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        except (OSError, ValueError) as error:
            return str(error)
        with self.changed:  # so that ``cancel`` misses none
            self.running.add(process)
            late = time.monotonic() >= self.until
        try:
            if late:
                kill(process)
                return "the time was over"
            code = process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            return f"no end within {self.timeout:g} s"
        finally:
            with self.changed:
                self.running.discard(process)
        return "" if code == 0 else f"exit code {code}" if code > 0 else f"signal {-code}"

    def cancel(self) -> None:
        """Kill what still runs."""
        with self.changed:
            for process in self.running:
                kill(process)

    def summary(self, missing: int, reason: str) -> str:
        """How the runs ended."""
        ended = ", ".join(f"{count} x {code}" for code, count in self.codes.most_common(5))
        return f"sink=command: of {self.count} events {missing} failed or were left out ({ended or reason})"


def filled(text: str, row: Row) -> str:
    """An argument with the event in its places, in one go: what a label holds is not looked at again."""
    return PLACEHOLDER.sub(lambda found: str(row[found.group(1)]).replace("\0", "\\x00"), text)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """The program, and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
