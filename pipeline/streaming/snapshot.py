"""What a stream remembers, as safe bytes: safetensors with a JSON header. Reading them runs nothing and trusts nothing.

The bytes say which model they are of and carry a digest of themselves, so that damage is found. A digest is no seal:
who can write the bytes can write it, too. Therefore every claim is compared with the model, and nothing is allocated
that is larger than the bytes are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.core.errors import SnapshotError
from pipeline.media.input_spec import Arrays
from pipeline.model.stream_model import Memory, StreamModel, finite, to_numpy
from pipeline.streaming.guard import TEXTS, Counts

FORMAT = 1
HEADER = "rivulet-stream"  # one entry: a digest, and the card; of several, the order would not be fixed
MAX_WAITING_BYTES = 1 << 26  # bytes of what is waiting, and of a block, at most
MAX_HEADER_BYTES = 1 << 20  # bytes of the header at most
MAX_COUNT = 2**62  # no counter is larger
Counter = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class Card(BaseModel):
    """The header: the counters of a stream, see ``Stream``, and what its decoder and its guard remember."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: int = FORMAT
    model: str = ""
    engine: Literal["torch", "onnx"] = "torch"  # what computed the state: another goes on from it, with other last bits
    size: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    ticks: Counter
    surplus: Counter
    skip: Counter
    steps: Counter
    end: Counter | None
    closed: bool
    decoder: dict[str, Any]
    guard: Counts


class Remembered(NamedTuple):
    """All that a stream remembers; ``held``: the last good posteriors ``(K,)``."""

    card: Card
    state: Memory
    waiting: Arrays
    newest: Arrays
    held: NDArray[np.float32]


def refused(why: str) -> SnapshotError:
    """The error for all bytes that cannot be used."""
    return SnapshotError(f"snapshot: {why}; take another with Stream.snapshot()")


def pack(model: StreamModel, memory: Remembered) -> bytes:
    """Bytes for ``unpack``. SnapshotError if what is waiting is larger than ``MAX_WAITING_BYTES``."""
    check_size(model, memory.card.size, memory.waiting)
    known = {"model": model.identity(), "engine": engine_of(model)}
    text = memory.card.model_copy(update=known).model_dump_json()
    named = arrays_of(memory.state, memory.waiting, memory.newest, memory.held)
    return save(named, {HEADER: f"{digest_of(text, named)} {text}"})


def unpack(model: StreamModel, data: bytes) -> Remembered:
    """What ``pack`` was given, on the model's device. SnapshotError says what is wrong with the bytes."""
    initial = model.begin(1)
    most = 2 * MAX_WAITING_BYTES + 2 * MAX_HEADER_BYTES + sum(array.nbytes for array in initial)
    if len(data) > most:
        raise refused(f"{len(data)} bytes; a stream of this model has {most} at most")
    text, digest = header_of(data)
    try:
        named: dict[str, NDArray[Any]] = load(bytes(data))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refused(f"no whole safetensors ({error})") from None
    if digest_of(text, named) != digest:
        raise refused("damaged: the digest is another")
    card = card_of(model, text)
    expected = arrays_of(initial, model.spec.empty(), model.spec.empty(), np.zeros(len(model.labels), np.float32))
    if named.keys() != expected.keys():
        raise refused(f"it holds {', '.join(sorted(named))}; expected {', '.join(sorted(expected))}")
    for name, wanted in expected.items():
        array, any_length = named[name], name.startswith(("waiting", "newest"))
        same = array.ndim == wanted.ndim and array.shape[any_length:] == wanted.shape[any_length:]
        if not same or array.dtype != wanted.dtype:
            raise refused(f"{name} is {array.dtype} {array.shape}; expected {wanted.dtype} {wanted.shape}")
    tracks = range(len(model.spec.tracks))
    waiting, newest = (tuple(named[f"{what}.{number}"].copy() for number in tracks) for what in ("waiting", "newest"))
    check_tracks(model, card, waiting, newest)
    state = tuple(named[f"state.{number}"].copy() for number in range(len(initial)))
    counts = [array for array in state if array.dtype.kind != "f"]
    out_of_range = any(((array < 0) | (array > MAX_COUNT)).any() for array in counts)
    if out_of_range or not finite(state, initial).all() or not np.isfinite(named["held"]).all():
        raise refused("its state is not finite, or counts less than nothing")
    return Remembered(card, state, waiting, newest, named["held"].copy())


def engine_of(model: StreamModel) -> str:
    """What computes a model."""
    return model.engine.get("compute", "torch")


def arrays_of(state: Memory, waiting: Arrays, newest: Arrays, held: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot by their names in it."""
    groups = {"state": [to_numpy(array) for array in state], "waiting": waiting, "newest": newest}
    named = {f"{what}.{number}": array for what, arrays in groups.items() for number, array in enumerate(arrays)}
    return {name: np.ascontiguousarray(array) for name, array in named.items()} | {"held": held}


def header_of(data: bytes) -> tuple[str, str]:
    """The card's text, and the digest, from the header of safetensors."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise refused(
            f"{len(data)} bytes, which are no whole safetensors with a header of {MAX_HEADER_BYTES} bytes at most"
        )
    try:
        entry = json.loads(bytes(data[8 : 8 + size]).decode())["__metadata__"][HEADER]
        digest, _, text = entry.partition(" ")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refused(f"safetensors, but no snapshot of a stream ({error!r})") from None
    return text, digest


def card_of(model: StreamModel, text: str) -> Card:
    """The header, if all that it says can be true of a stream of this model."""
    try:
        version = json.loads(text).get("format")
        if version != FORMAT:
            raise refused(f"format {version!r:.40}; this version reads format {FORMAT}")
        card = Card.model_validate_json(text)
    except (ValidationError, ValueError, AttributeError, RecursionError) as error:
        raise refused(f"its header is not right ({error})") from None
    if card.model != model.identity():
        raise refused(f"of the model {card.model!r:.40}, but this one is {model.identity()!r}")
    ranges = {
        "size": card.size % model.grain == 0,
        "surplus": card.surplus < model.grain,
        "skip": card.skip <= model.delay,
        "guard.seen": card.guard.seen.keys() <= TEXTS.keys(),
    }
    wrong = [name for name, fine in ranges.items() if not fine]
    if wrong:
        raise refused(f"its header is out of range: {', '.join(wrong)}")
    return card


def check_size(model: StreamModel, size: int, waiting: Arrays) -> None:
    """SnapshotError if what is waiting, or a block of ``size`` ticks, is larger than ``MAX_WAITING_BYTES``."""
    block = size // model.spec.grain * sum(track.grain_bytes for track in model.spec.tracks)
    found = sum(array.nbytes for array in waiting)
    if block > MAX_WAITING_BYTES or found > MAX_WAITING_BYTES:
        raise refused(f"a block of {block} bytes, and {found} waiting; expected {MAX_WAITING_BYTES} of each at most")


def check_tracks(model: StreamModel, card: Card, waiting: Arrays, newest: Arrays) -> None:
    """SnapshotError if what is waiting is too large, not finite, or not what the counters tell."""
    spec, ticks = model.spec, model.spec.ticks(waiting)
    check_size(model, card.size, waiting)
    steps = [ticks // spec.grain * track.steps for track in spec.tracks]
    if [len(array) for array in waiting] != steps or {len(array) for array in newest} not in ({0}, {1}):
        raise refused("its tracks are not of one length")
    received = (card.steps + model.delay - card.skip) * model.hop + ticks
    if card.end is None and received != card.ticks:
        raise refused(f"its counters contradict each other: {card.ticks} ticks, of which {received} are known")
    if not all(np.isfinite(array).all() for array in waiting[1:]):
        raise refused("its marks are not finite")


def digest_of(text: str, named: Mapping[str, NDArray[Any]]) -> str:
    """A digest of the header and of all arrays."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16)
    for name, array in sorted(named.items()):
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode(errors="surrogatepass"))
        digest.update(array.tobytes())
    return digest.hexdigest()
