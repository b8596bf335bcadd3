"""A model whose step is an ONNX graph, computed by onnxruntime: what ``pipeline.exporting`` writes, read without torch.

The file is one graph with standard operators. Its metadata hold a JSON card under ``rivulet`` and, as the last bytes of
the file, a SHA-256 of all bytes before, so that damage is found. Reading runs nothing but the graph.
"""

import base64
import hashlib
import json
import math
import os
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from pipeline.core.build import build
from pipeline.core.errors import ConfigError, ModelError
from pipeline.core.moved import with_new_names
from pipeline.decoders.decoder import Decoder
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.model.file import DEFAULTS, PARTS, Promise
from pipeline.model.golden_clip import TOLERANCE, difference
from pipeline.model.onnx_bound import OnnxBound
from pipeline.model.stream_model import MAX_STATE_BYTES, Memory

FORMAT = 1
KEY = "rivulet"
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"  # protobuf of metadata_props {key: "sha256", value: 64 hex digits}
SEAL_BYTES = len(SEAL) + 64
NEVER = 2.0  # no posterior reaches it
NEVER_NUMBER = 3e38  # nor any number
TYPES = {"float32": "float", "float64": "double", "int64": "int64", "int32": "int32", "uint8": "uint8", "bool": "bool"}
ANEW = "write it again with `python -m pipeline.exporting RUN`, or compute with torch: compute=torch"


class StateCard(BaseModel):
    """One array of the memory, without the axis of rows. ``initial``: one number for all, or base64 of all of them."""

    model_config = ConfigDict(extra="forbid")
    shape: list[NonNegativeInt]
    type: Literal["float32", "float64", "int64", "int32", "uint8", "bool"]
    initial: float | str

    def begin(self, rows: int) -> NDArray[Any]:
        """The array before the first tick, ``(rows, *shape)``."""
        kind = np.dtype(self.type)
        if self.initial in ("inf", "-inf") or not isinstance(self.initial, str):
            return np.full((rows, *self.shape), self.initial, kind)
        one = np.frombuffer(base64.b64decode(self.initial), kind).reshape(self.shape)
        return np.repeat(one[None], rows, axis=0)

    @classmethod
    def of(cls, first: NDArray[Any]) -> "StateCard":
        """The card of an initial array ``(1, *shape)``."""
        values = np.unique(first)
        text: float | str = base64.b64encode(np.ascontiguousarray(first[0]).tobytes()).decode()
        if len(values) <= 1:
            text = 0.0 if not len(values) else float(values[0]) if np.isfinite(values[0]) else str(values[0])
        return cls(shape=list(first.shape[1:]), type=str(first.dtype), initial=text)


class EventCard(BaseModel):
    """The decoder's settings for programs that are not this one: a posterior of each label, and numbers of steps."""

    model_config = ConfigDict(extra="forbid")
    high: list[float]  # ``NEVER`` for a label that is background
    low: list[float]
    minimum: int
    merge: int
    refractory: int


class Card(BaseModel):
    """What a graph says of itself."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    labels: list[str]
    link: Literal["softmax", "sigmoid", "linear"]
    config: dict[str, dict[str, Any]]
    spec: InputSpec
    hop: PositiveInt
    grain: PositiveInt
    delay: NonNegativeInt
    block: PositiveInt  # ticks
    clip_window: float | None  # of the head, in seconds, for whole clips
    events: EventCard
    gated: bool  # whether its answers are those behind the gate
    states: list[StateCard]
    identity: str  # of the model it was made of
    weights: str  # the same, whatever the head's window is
    golden: list[list[float]]  # posteriors of the golden clip
    versions: dict[str, str]
    promise: Promise | None = None

    def check(self, session: Any) -> None:
        """ValueError for what cannot be true, or is not true of the graph."""
        spec = self.spec
        rates = [spec.sound] if spec.sound is not None else []
        rates += [spec.picture.rate] if spec.picture else []
        slow = spec.series is not None and not rates and spec.series.rate > 0
        if (
            not (slow or min(rates, default=0) >= 1)
            or self.grain % math.lcm(spec.grain, self.hop)
            or self.block % self.grain
        ):
            raise ValueError(f"a block of {self.block} ticks, {self.grain} of them at least, for steps of {self.hop}")
        if missing := set(PARTS) - DEFAULTS.keys() - self.config.keys():
            raise ValueError(f"config lacks {', '.join(sorted(missing))}")
        if any(len(row) != len(self.labels) for row in self.golden):
            raise ValueError(f"its golden answers are not of {len(self.labels)} labels")
        states = [(state.shape, state.type) for state in self.states]
        if sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in states) > MAX_STATE_BYTES:
            raise ValueError(f"a stream would take more than {MAX_STATE_BYTES:,} bytes")
        steps = self.block // spec.grain
        tracks = [([steps * track.steps, *track.shape], np.dtype(track.kind).name) for track in spec.tracks]
        posteriors = [self.block // self.hop, len(self.labels)], "float32"
        start = [([1], "float32")] * has_start(session)
        wanted = [*tracks, *start, *states], [posteriors, *states]
        for what, given, expected in zip(
            ("takes", "gives"), (session.get_inputs(), session.get_outputs()), wanted, strict=True
        ):
            found = [(one.type, one.shape[1:]) for one in given]
            named = [(f"tensor({TYPES[kind]})", shape) for shape, kind in expected]
            for number, (one, other) in enumerate(zip_longest(found, named)):
                if one != other:
                    raise ValueError(f"the graph {what} {one} as number {number}; expected {other}")
        if any(np.isnan(array).any() for array in (state.begin(1) for state in self.states)):
            raise ValueError("a memory begins with NaN")


class OnnxModel:
    """See ``StreamModel``. A block is a multiple of the graph's own, and is computed in pieces of that."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """ModelError for a file that is not ours, of another version or damaged; ConfigError without onnxruntime."""
        self.path, self.content, self.threads = path, unsealed(path), threads
        self.card = card = card_of(self.session, path)
        self.spec, self.rate = card.spec, card.spec.rate
        self.labels, self.config = card.labels, with_new_names(card.config)
        self.hop, self.delay, self.grain, self.unit = card.hop, card.delay, card.grain, card.block
        self.link, self.promise = card.link, card.promise
        self.engine = {"device": "cpu", "precision": "fp32", "compute": "onnx", "block": str(card.block)}
        self.inputs, self.has_start = [one.name for one in self.session.get_inputs()], has_start(self.session)
        try:
            self.decoder()
        except Exception as error:  # whatever hostile settings bring about
            raise ModelError(f"{path}: its decoder is not right ({error!s:.1000}); {ANEW}") from error

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which no other process can have."""
        return {name: value for name, value in vars(self).items() if name != "session"}

    @cached_property
    def session(self) -> Any:
        """The graph, opened."""
        return session_of(self.content, self.threads, self.path)

    def begin(self, rows: int) -> Memory:
        """The card's initial states."""
        return tuple(state.begin(rows) for state in self.card.states)

    def bound(self, rows: int, ticks: int) -> OnnxBound:
        """See ``StreamModel``."""
        return OnnxBound(self, rows, ticks)

    def bind(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> Any:
        """The graph's inputs and outputs in these arrays, for ``session.run_with_iobinding``."""
        from onnxruntime import OrtValue

        binding = self.session.io_binding()
        for name, array in zip(self.inputs, inputs, strict=True):
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        for one, array in zip(self.session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(one.name, OrtValue.ortvalue_from_numpy(array))
        return binding

    def advance(self, block: Arrays, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """By the graph, once for each of its own blocks."""
        rows = len(block[0])
        bound = self.bound(rows, self.spec.ticks(tuple(part[0] for part in block)))
        for place, part in zip(bound.tracks, block, strict=True):
            place[:] = part
        bound.gather(memory, range(rows))
        bound.run(rows)
        bound.accept()
        return bound.y, bound.memory()

    def pieces(self, block: Arrays) -> list[Arrays]:
        """A block in pieces of the graph's own size."""
        grains = self.card.block // self.spec.grain
        sizes = [grains * track.steps for track in self.spec.tracks]
        count = block[0].shape[1] // sizes[0]
        if count == 1:
            return [block]
        return [
            tuple(part[:, k * size : (k + 1) * size] for part, size in zip(block, sizes, strict=True))
            for k in range(count)
        ]

    def decoder(self, **settings: Any) -> Decoder:
        """A new decoder with the model's settings, changed by ``settings``."""
        config = self.config["decoder"] | settings
        return build(config, Decoder, at="decoder", labels=self.labels, hop=self.hop, rate=self.rate)

    def identity(self, window: bool = True) -> str:
        """That of the model it was made of."""
        return self.card.identity if window else self.card.weights

    def check_golden(self, parts: Arrays, found: NDArray[np.float32]) -> None:
        """ModelError if posteriors of the golden clip are not those of torch when the graph was made; graphs with
        small weights have none.
        """
        golden = self.card.golden
        if golden and (apart := difference(found, np.array(golden, np.float32))) > TOLERANCE:
            raise ModelError(
                f"self-test: the answers differ by {apart:.2g} from those stored with {self.path.name}; {ANEW}, or "
                "turn this check off with selftest=false"
            )

    def check_block(self, ticks: int) -> None:
        """ConfigError unless a block is a multiple of the graph's own."""
        if ticks % self.card.block:
            raise ConfigError(
                f"block: {ticks / self.rate:g} s; {self.path.name} computes {self.card.block / self.rate:g} s at a "
                "time, so expected a multiple of that; or compute=torch"
            )


def session_of(data: bytes, threads: int, path: Path) -> Any:
    """An onnxruntime session on so many threads (0: as many as it likes)."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            "compute=onnx needs onnxruntime, which is not installed: pip install onnxruntime, or compute=torch"
        ) from None
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime, of which there are many
        raise ModelError(f"{path}: onnxruntime refuses it ({str(error)[:200]}); {ANEW}") from error


def has_start(session: Any) -> bool:
    """Whether a graph can be told that rows begin anew."""
    return any(one.name == "start" for one in session.get_inputs())


def seal(data: bytes) -> bytes:
    """A graph with its digest behind it; protobuf reads that as one more entry of the metadata."""
    return data + SEAL + hashlib.sha256(data).hexdigest().encode()


def unsealed(path: Path) -> bytes:
    """The bytes of a graph. ModelError for a file that is none of ours, or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {ANEW}") from None
    body, tail = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    if not tail.startswith(SEAL):
        raise ModelError(f"{path}: no graph of Rivulet, or not a whole one; {ANEW}")
    if tail[len(SEAL) :] != hashlib.sha256(body).hexdigest().encode():
        raise ModelError(f"{path}: damaged: its digest is another; {ANEW}")
    return data


def card_of(session: Any, path: Path) -> Card:
    """What a graph says of itself. ModelError if that cannot be true."""
    text = session.get_modelmeta().custom_metadata_map.get(KEY, "null")
    try:
        version = (json.loads(text) or {}).get("format")
        if version != FORMAT:
            raise ModelError(f"{path}: a graph of format {version!r:.40}; this version reads {FORMAT}; {ANEW}")
        card = Card.model_validate_json(text)
        card.check(session)
    except (ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: its card is not right ({error!s:.1000}); {ANEW}") from None
    return card
