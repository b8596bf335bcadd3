"""What streams, batches and sinks need of a model: its step, and what its answers mean.

``Classifier`` computes the step with torch, ``OnnxModel`` with onnxruntime and without torch.
"""

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.model.bound import Bound
from pipeline.model.decoder import Decoder

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
        link: ``softmax`` for one label at a time, ``sigmoid`` for any number of them.
        engine: what computes it, and where.
    """

    labels: list[str]
    spec: InputSpec
    config: dict[str, dict[str, Any]]
    rate: int
    hop: int
    delay: int
    grain: int

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

    def bound(self, rows: int, ticks: int) -> Bound:
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


def block_ticks(model: StreamModel, seconds: float) -> int:
    """The ticks of a block of about so many seconds: whole steps, of every track."""
    steps = max(1, round(seconds * model.rate / model.hop))
    return -(-steps * model.hop // model.grain) * model.grain
