"""Live sources: devices and network streams that may fail, and are then opened again."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import PositiveFloat

from pipeline.core.errors import MediaError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.sources.capture import LostError
from pipeline.sources.source import Gap, Piece, Policy, Source

FIRST_RETRY_SECONDS = 0.25  # pause before a lost device is opened again; it doubles each time
MAX_RETRY_SECONDS = 5.0


@dataclass(eq=False, kw_only=True)
class LiveSource(Source):
    """A device that is opened, read, and opened again after a loss. A subclass defines ``begin``, ``open``,
    ``read`` and ``lose``. An open device has ``what``, which describes it, and ``close()``.

    ``timeout``: seconds without data until the device counts as lost (``opening``: before the first data).
    ``patience``: seconds for which a lost device is tried again (None: for ever). ``gap``: what a gap does to the
    state. ``seconds``: when to stop (None: never).

    Attributes:
        clock: seconds; ``Piece.captured`` is on it. ``sleep`` waits on it.
        started: whether the device has delivered anything.
    """

    timeout: PositiveFloat = 2.0
    opening: PositiveFloat = 10.0
    patience: PositiveFloat | None = None
    gap: Policy = "reset"
    seconds: PositiveFloat | None = None

    live = True
    clock = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    started = False
    lost_at: float | None = field(default=None, init=False)  # None once the device delivers again
    retry_seconds = FIRST_RETRY_SECONDS

    def begin(self, spec: InputSpec) -> None:
        """Prepare to read. ConfigError if the source cannot give what ``spec`` asks for."""
        raise NotImplementedError

    def open(self, again: bool) -> Any:
        """The device. ``again``: after a loss. LostError if it cannot be opened."""
        raise NotImplementedError

    def read(self, device: Any, spec: InputSpec, seen: bool, end: float) -> Iterator[Piece | Gap]:
        """Yield what the device delivers until ``end`` on the clock, and call ``delivered`` with each. LostError if no
        more comes.
        """
        raise NotImplementedError

    def lose(self, error: LostError) -> Iterator[Piece | Gap]:
        """Yield what is left of the device's data, and a gap of 0 ticks at the beginning of a loss."""
        raise NotImplementedError

    def finish(self) -> Iterator[Piece | Gap]:
        """Yield what is left at the end."""
        yield from ()

    def report(self) -> None:
        """Print what is worth knowing at the end."""

    def failure(self, error: LostError) -> UserError:
        """The error for users when the device cannot be opened or is given up."""
        return MediaError("device_lost", f"{self.name}: {error}")

    def delivered(self) -> None:
        """Note that the device works."""
        self.started, self.lost_at, self.retry_seconds = True, None, FIRST_RETRY_SECONDS

    def pieces(self, spec: InputSpec, seen: bool = False) -> Iterator[Piece | Gap]:
        device: Any = None
        self.begin(spec)
        try:
            device = self.open(False)
            print(f"{self.name}: {device.what}", file=sys.stderr)
            end = math.inf if self.seconds is None else self.clock() + self.seconds
            while device is not None and self.clock() < end:
                try:
                    yield from self.read(device, spec, seen, end)
                except LostError as error:
                    if not self.started:
                        raise
                    device.close()
                    device = None
                    yield from self.lose(error)
                    for device in self.reopen(str(error), end):  # noqa: B007
                        yield Piece(spec.empty())  # so that the caller can stop
            yield from self.finish()
        except LostError as error:
            raise self.failure(error) from None
        except (KeyboardInterrupt, SystemExit):  # what was received is still answered
            yield from self.finish()
            raise
        finally:
            if device is not None:
                device.close()
            self.report()

    def reopen(self, lost: str, end: float) -> Iterator[Any]:
        """Yield None while the device is away, at last the device; stop at ``end``. LostError after ``patience``."""
        pause_first = self.lost_at is not None  # it was opened again, but delivered nothing
        self.lost_at = self.clock() if self.lost_at is None else self.lost_at
        why = "it delivers nothing"
        while self.clock() < end:
            if not pause_first:
                try:
                    yield self.open(True)
                    return
                except LostError as error:
                    why = str(error)
            if self.patience is not None and self.clock() - self.lost_at >= self.patience:
                raise LostError(f"{lost}, and it did not come back in {self.patience:g} s ({why})")
            for _ in range(round(self.retry_seconds / FIRST_RETRY_SECONDS)):
                self.sleep(FIRST_RETRY_SECONDS)
                yield None
            self.retry_seconds, pause_first = min(2 * self.retry_seconds, MAX_RETRY_SECONDS), False
