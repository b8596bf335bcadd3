"""What streams, batches and sinks need of a model: its step, and what its answers mean.

``Classifier`` computes the step with torch, ``OnnxModel`` with onnxruntime and without torch.
"""

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.decoder import Decoder
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.model.file import Promise

# What a model remembers: arrays with the batch on axis 0, of numpy, or of torch on another device. A plain value: it
# goes in, another comes out, and what went in is never written to.
Memory: TypeAlias = tuple[Any, ...]
MAX_STATE_BYTES = 4_000_000_000  # of what one stream remembers


class StreamModel(Protocol):
    """A model for streams.

    Attributes:
        labels: what its posteriors are of.
        spec: what it takes, on a clock of ``rate`` ticks a second.
        hop, delay: ticks of a step; steps by which answers lag.
        grain: ticks of the smallest chunk that makes whole steps of every track.
        unit: ticks of the smallest block that it computes; others are multiples of it.
        config: the settings of its parts.
        link: ``softmax`` for one label at a time, ``sigmoid`` for any number of them, ``linear`` for numbers.
        engine: what computes it, and where.
        promise: what its own thresholds bring, if they were chosen by a wish.
    """

    labels: list[str]
    spec: InputSpec
    config: dict[str, dict[str, Any]]
    rate: int
    hop: int
    delay: int
    grain: int
    promise: Promise | None

    @property
    def unit(self) -> int: ...

    @property
    def link(self) -> str: ...

    @property
    def engine(self) -> dict[str, str]: ...

    def begin(self, rows: int) -> Memory:
        """The memory before the first tick, for so many streams; the caller's own."""

    def advance(self, block: Arrays, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """A block of each of B streams, ``(B, steps, ...)`` per track, to posteriors ``(B, T, K)`` and the next memory.
        A row whose memory is not finite gets NaN, and perhaps its neighbours do.
        """

    def bound(self, rows: int, ticks: int) -> "Bound":
        """Places for its step on at most so many rows, blocks of ``ticks`` each."""

    def decoder(self, **settings: Any) -> Decoder:
        """A new decoder with the model's settings, changed by ``settings``."""

    def identity(self, window: bool = True) -> str:
        """A short hash of weights and settings: the same for the same answers. Without ``window``: whatever the head's
        window is.
        """

    def check_golden(self, parts: Arrays, found: NDArray[np.float32]) -> None:
        """ModelError if a stream's posteriors ``(T, K)`` of the golden clip are not what they should be."""

    def check_block(self, ticks: int) -> None:
        """ConfigError if it cannot compute blocks of so many ticks."""


class Bound:
    """The step on at most ``rows`` rows.

    Attributes:
        tracks: where the blocks are put, ``(rows, steps, ...)`` each.
        before, after: the memory that is taken on, and the one that comes of it.
        y: posteriors ``(B, T, K)``; as ``after``, they may be written again by the next ``run``.
    """

    y: NDArray[np.float32]
    after: Memory

    def __init__(self, model: StreamModel, rows: int, ticks: int) -> None:
        """``ticks``: of a block, a multiple of the model's unit."""
        self.model, self.ticks, self.first, self.before = model, ticks, model.begin(1), model.begin(rows)
        spec = model.spec
        self.tracks: Arrays = tuple(
            np.zeros((rows, ticks // spec.grain * track.steps, *track.shape), track.kind) for track in spec.tracks
        )

    def put(self, row: int, block: Arrays) -> None:
        """Put a block ``(steps, ...)`` per track into its row."""
        for place, part in zip(self.tracks, block, strict=True):
            place[row] = part

    def gather(self, memory: Memory, index: Any) -> None:
        """Take these rows of a ``memory`` on."""
        self.before = tuple(array[index] for array in memory)

    def run(self, count: int) -> None:
        """The step on the first ``count`` rows: as many as were gathered."""
        self.y, self.after = self.model.advance(tuple(track[:count] for track in self.tracks), self.before)

    def good(self, count: int) -> NDArray[np.bool_]:
        """Which of the first ``count`` rows are finite, their posteriors and their new memory: ``(B,)``."""
        after = tuple(array[:count] for array in self.after)
        return np.isfinite(self.y[:count]).all(axis=(1, 2)) & finite(after, self.first)

    def accept(self) -> None:
        """The next step takes on the new memory."""
        self.before = self.after

    def memory(self) -> Memory:
        """A copy of the memory before the next step."""
        return self.before


def finite(memory: Memory, first: Memory) -> NDArray[np.bool_]:
    """Which rows of a memory hold only finite numbers, or those with which it begins (``first``, one row), as a maximum
    of nothing is minus infinity: ``(B,)``.
    """
    found = np.ones(len(memory[0]) if memory else 1, bool)
    for array, one in zip(memory, first, strict=True):
        flat = array.reshape(-1)
        if to_numpy(flat[:1]).dtype.kind == "f" and not math.isfinite(flat @ flat):  # faster than to look at each
            rows = to_numpy(array).reshape(len(array), -1)
            found &= (np.isfinite(rows) | (rows == to_numpy(one).reshape(1, -1))).all(1)
    return found


def to_numpy(array: Any) -> NDArray[Any]:
    """An array, wherever it is, on the processor."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def block_ticks(model: StreamModel, seconds: float) -> int:
    """The ticks of a block of about so many seconds: whole steps, of every track."""
    steps = max(1, round(seconds * model.rate / model.hop))
    return -(-steps * model.hop // model.grain) * model.grain
