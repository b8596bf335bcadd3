"""Guards at both ends of a stream: what comes in is made sound, what comes out is checked, and nothing bad stays.

What is done about what comes in, each time it comes, and with one warning per episode unless it says otherwise:

* ``not_finite``: samples that are NaN or infinite become 0.
* ``too_loud``: samples beyond ``MAX_AMPLITUDE`` times full scale become full scale, with their sign.
* ``clipped``: more than ``CLIPPED_SHARE`` of a block's samples at full scale. They are left as they are: what is lost
  cannot be brought back.
* ``offset``: a mean over the last second of more than ``MAX_OFFSET``. It is left in: the model was trained with it, and
  a filter bank that begins above 0 Hz hardly sees it.
* denormal samples become 0, without a warning: none of them can be heard, but they can be slow.
* ``not_computed``: after a step, the state or the posteriors are not finite. The state before the step stays, and the
  block's posteriors are the last good ones; after ``HOLD_SECONDS`` of that, all zeros (nothing is heard, so that open
  events end), and the state begins anew. Numbers that are no posteriors stay the last good ones.

An episode of a kind is over when it has not come for ``EPISODE_SECONDS``. All of this looks at whole blocks, so it
does not depend on the sizes in which samples arrive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.media.audio import MAX_AMPLITUDE, Samples
from pipeline.media.input_spec import Arrays
from pipeline.model.stream_model import Memory

FULL_SCALE = 0.999  # of full scale: at full scale
CLIPPED_SHARE = 0.01  # of a block
MAX_OFFSET = 0.05  # of full scale
OFFSET_SECONDS = 1.0  # seconds over which the offset is averaged
EPISODE_SECONDS = 10.0  # seconds
HOLD_SECONDS = 1.0  # seconds
TINY = float(np.finfo(np.float32).tiny)
TEXTS = {
    "not_finite": "samples that are no numbers; taken as 0",
    "too_loud": f"samples beyond {MAX_AMPLITUDE:g} times full scale; taken as full scale (expected: floats -1 to 1)",
    "clipped": "samples stand at full scale; lower the gain of the recording",
    "offset": f"the samples' mean is not 0 but beyond {MAX_OFFSET:g}; look for a faulty microphone or converter",
    "not_computed": "the model's state became infinite; it goes on from the last good one",
}
Count = Annotated[int, Field(ge=0, le=2**62)]


@dataclass
class Counts:
    """What a stream has met so far: samples, or blocks for ``not_computed``."""

    not_finite: Count = 0
    too_loud: Count = 0
    clipped: Count = 0
    denormal: Count = 0
    not_computed: Count = 0
    offset: Annotated[float, Field(ge=-MAX_AMPLITUDE, le=MAX_AMPLITUDE)] = 0.0  # mean of the last second
    failing: Count = 0  # ticks for which no step could be computed, up to now
    seen: dict[str, Count] = field(default_factory=dict)  # kind -> tick at which it was last seen to end


class Guard:
    """The guard of one stream.

    Attributes:
        counts: what it has met.
        warnings: rows ``{time, code, text}``, time in seconds; the stream empties the list.
        held: the last posteriors ``(K,)`` that were finite.
    """

    def __init__(self, rate: int, sound: bool, initial: Memory, classes: int, bounded: bool = True) -> None:
        """``rate`` ticks a second; whether the first track is ``sound``; ``initial`` state, number of ``classes``;
        whether answers are posteriors.
        """
        self.rate, self.sound, self.initial, self.classes, self.bounded = rate, sound, initial, classes, bounded
        self.counts, self.warnings = Counts(), list[dict[str, Any]]()
        self.reset()

    def reset(self) -> None:
        """Forget the last posteriors and the offset: what follows begins anew."""
        self.held = np.zeros(self.classes, np.float32)
        self.counts.failing, self.counts.offset = 0, 0.0

    def samples(self, x: Samples, start: int) -> Samples:
        """Samples ``(N,)``, N > 0, all finite, normal and within ``MAX_AMPLITUDE``."""
        x, total, bad = self.repaired(x, start)
        small = np.abs(x) < TINY
        denormal = int(np.count_nonzero(x[small]))
        if denormal:
            self.counts.denormal += denormal
            x = np.where(small, np.float32(0), x)
        self.follow_offset(total / (len(x) - bad) if len(x) > bad else 0.0, start, len(x))
        return x

    def follow_offset(self, mean: float, start: int, ticks: int) -> None:
        """The ``mean`` of so many ticks joins that of the last second."""
        counts = self.counts
        counts.offset += (1 - math.exp(-ticks / (OFFSET_SECONDS * self.rate))) * (mean - counts.offset)
        if abs(counts.offset) > MAX_OFFSET:
            self.warn("offset", start, start + ticks)

    def repaired(self, x: Samples, start: int) -> tuple[Samples, float, int]:
        """Samples of which some are at full scale or worse; with the sum of the good ones, and how many are bad."""
        size, finite = np.abs(x), np.isfinite(x)
        loud = finite & (size > MAX_AMPLITUDE)
        full = finite & (size >= FULL_SCALE) & ~loud
        self.counts.not_finite += self.count("not_finite", ~finite, start)
        self.counts.too_loud += self.count("too_loud", loud, start)
        self.counts.clipped += self.count("clipped", full, start, CLIPPED_SHARE * len(x))
        good = np.where(finite & ~loud, x, np.float32(0))
        whole: Samples = np.where(loud, np.copysign(np.float32(1), x), good)
        return whole, float(good.sum()), int(np.count_nonzero(~finite | loud))

    def count(self, code: str, where: NDArray[np.bool_], start: int, most: float = 0.0) -> int:
        """How many samples are marked; with a warning if they are more than ``most``."""
        count = int(np.count_nonzero(where))
        if count > most:
            places = np.flatnonzero(where)
            self.warn(code, start + int(places[0]), start + int(places[-1]) + 1)
        return count

    def warn(self, code: str, start: int, end: int) -> None:
        """Something from tick ``start`` to tick ``end``: a warning if an episode begins with it."""
        last = self.counts.seen.get(code)
        if last is None or start - last > EPISODE_SECONDS * self.rate:
            self.warnings.append({"time": round(start / self.rate, 3), "code": code, "text": TEXTS[code]})
        self.counts.seen[code] = end

    def replaced(
        self, y: NDArray[np.float32], broken: bool, start: int, ticks: int
    ) -> tuple[NDArray[np.float32], bool]:
        """What stands in for posteriors ``(T, K)`` of a block of ``ticks``, as they or the state are not finite; and
        whether the state has to begin anew. ``broken``: the state before the block was not finite, either.
        """
        self.counts.not_computed += 1
        self.warn("not_computed", start, start + ticks)
        self.counts.failing += ticks
        restart = broken or self.counts.failing > HOLD_SECONDS * self.rate
        if restart and self.bounded:
            self.held = np.zeros_like(self.held)
        return np.repeat(self.held[None], len(y), axis=0), restart


def clean(guards: Sequence[Guard], blocks: Arrays, starts: Sequence[int]) -> None:
    """Make the first of some blocks ``(rows, steps, ...)`` per track sound where they are, one for each guard, which
    counts what was not; ``starts``: first ticks.
    """
    if not guards[0].sound:
        return
    x, ticks = blocks[0][: len(guards)], blocks[0].shape[1]
    size = np.abs(x)
    fine = np.maximum.reduce(size, 1) < FULL_SCALE  # the greatest of NaN is NaN
    if np.count_nonzero(small := size < TINY):
        fine &= ~(small & (size > 0)).any(1)
    for row in np.flatnonzero(~fine).tolist():
        x[row] = guards[row].samples(x[row], starts[row])
    for guard, total, start, good in zip(guards, np.add.reduce(x, 1).tolist(), starts, fine.tolist(), strict=True):
        if good:
            guard.follow_offset(total / ticks, start, ticks)
