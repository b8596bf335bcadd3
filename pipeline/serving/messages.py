"""What a page and the server say to each other, as pure functions of bytes: protocol ``rivulet.1`` (docs/protocol.md).

Text is JSON, for control. Binary messages go from the client to the server: a header of 16 bytes, little-endian, ``kind
u8, flags u8, 0 u16, length u32 (ticks), tick u64``, and a payload. Whatever a stranger sends is a message of these, or
``Refused`` with the code that closes the connection.
"""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from pipeline.decoders.decoder import Event
from pipeline.media.audio import Samples
from pipeline.media.input_spec import InputSpec
from pipeline.model.stream_model import StreamModel

PROTOCOL = "rivulet.1"
MALFORMED, TOKEN, NO_MODEL, LATE, TAKEN_OVER, TOO_LARGE, HOLE = 4400, 4401, 4404, 4408, 4409, 4413, 4422
BUSY, FAULT, STOPPING = 4429, 4500, 4503
ENDED = 1000
SOUND, PICTURE, GAP = 1, 2, 3  # kinds of frames
FLOATS = 1  # flag of sound: f32le, else s16le
SOUND_LOST, CAMERA_LOST = 1, 2  # flags of a gap of one track of two
HEADER = struct.Struct("<BBHIQ")
MAX_PAYLOAD = {SOUND: 64 << 10, PICTURE: 512 << 10, GAP: 100}  # bytes
MAX_WIDTH, MAX_HEIGHT = 1920, 1080  # of a picture
MAX_SCANS = 16  # of a JPEG
MAX_TICK = 1 << 53  # which numbers of JavaScript count exactly
Tick = Annotated[int, Field(ge=0, lt=MAX_TICK)]


class Refused(Exception):  # noqa: N818 - it is no error of ours
    """A connection is closed, with a code and a sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Hello(Message):
    """The first message. ``tick``: of the oldest frame that can still be sent. ``resume``: the newest seal.
    ``answered``: the first step without an answer.
    """

    type: Literal["hello"]
    token: Annotated[str, StringConstraints(max_length=200)]
    name: Annotated[str, StringConstraints(max_length=40)] = ""
    tick: Tick = 0
    resume: str | None = None
    answered: Tick = 0
    posteriors: bool = True


class Ping(Message):
    type: Literal["ping"]
    time: Annotated[float, Field(allow_inf_nan=False)]


class End(Message):
    type: Literal["end"]


Said: TypeAlias = Hello | Ping | End
SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


class Frame(NamedTuple):
    """A binary message; see above."""

    kind: int
    flags: int
    length: int
    tick: int
    payload: bytes


def parse_text(text: str) -> Said:
    """A text message. Refused if it is none of them."""
    try:
        return SAID.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "message"
        raise Refused(MALFORMED, f"{where[:40]}: {first['msg'][:60]}") from None


def parse_frame(data: bytes, spec: InputSpec) -> Frame:
    """A binary message that such a model has use for. Refused otherwise; a picture is looked at by its header alone."""
    if len(data) < HEADER.size:
        raise Refused(MALFORMED, f"a binary message of {len(data)} bytes; expected a header of {HEADER.size}")
    kind, flags, zero, length, tick = HEADER.unpack_from(data)
    takes = {SOUND: spec.sound, PICTURE: spec.picture, GAP: True}
    if not takes.get(kind) or zero or tick + length >= MAX_TICK:
        raise Refused(MALFORMED, f"a frame of kind {kind}, tick {tick}: this model has no use for it")
    payload = data[HEADER.size :]
    if len(payload) > MAX_PAYLOAD[kind]:
        raise Refused(TOO_LARGE, f"a payload of {len(payload)} bytes; expected {MAX_PAYLOAD[kind]} at most")
    if kind == SOUND and (flags not in (0, FLOATS) or length * (4 if flags else 2) != len(payload)):
        raise Refused(MALFORMED, f"{length} samples in {len(payload)} bytes, with flags {flags}")
    if kind == PICTURE:
        check_picture(payload)
    if kind == PICTURE and (flags or (length > 0) == spec.both):
        raise Refused(MALFORMED, f"a picture of {length} ticks, with flags {flags}")
    if kind == GAP and (flags > CAMERA_LOST * spec.both or (flags == CAMERA_LOST) != (length == 0)):
        raise Refused(MALFORMED, f"a gap of {length} ticks, with flags {flags}")
    return Frame(kind, flags, length, tick, payload)


def samples_of(frame: Frame) -> Samples:
    """The samples ``(N,)`` of a frame of sound."""
    if frame.flags == FLOATS:
        return np.frombuffer(frame.payload, "<f4").astype(np.float32)
    return np.frombuffer(frame.payload, "<i2") * np.float32(1 / 32768)


def check_picture(data: bytes) -> None:
    """Refused unless it begins as a JPEG does, with a size that may be decoded."""
    size = jpeg_size(data)
    if size is None:
        raise Refused(MALFORMED, "a picture that is no baseline JPEG")
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise Refused(TOO_LARGE, f"a JPEG of more than {MAX_SCANS} scans")
    if not (0 < size[0] <= MAX_WIDTH and 0 < size[1] <= MAX_HEIGHT):
        raise Refused(TOO_LARGE, f"a picture of {size[0]}x{size[1]}; expected {MAX_WIDTH}x{MAX_HEIGHT} at most")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, as the frame header (SOF0, SOF1, ITU-T T.81 B.2.2) says; None if there is none. A
    progressive one (SOF2), which browsers do not make of a canvas, may take thousands of times as long to decode.
    """
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xC0, 0xC1):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if size < 2 or marker in (0x00, 0xD8, 0xD9, 0xDA, 0xFF):
            return None
        at += 2 + size
    return None


def facts_of(model: StreamModel, size: int, decoder: Any) -> dict[str, Any]:
    """What a client has to know of a model whose blocks have ``size`` ticks."""
    picture, quiet = model.spec.picture, ~np.isfinite(decoder.high)
    silent = quiet & (model.link != "linear")  # numbers have no thresholds, but are no background
    return {
        "fingerprint": model.identity(),
        "labels": model.labels,
        "background": [label for label, is_quiet in zip(model.labels, silent, strict=True) if is_quiet],
        "link": model.link,
        "rate": model.rate,
        "hop": model.hop,
        "delay": model.delay,
        "block": size,
        "grain": model.spec.grain,
        "sound": model.spec.sound,
        "picture": picture and {"rate": picture.rate, "width": picture.width, "height": picture.height},
        "threshold": [None if is_quiet else float(level) for level, is_quiet in zip(decoder.high, quiet, strict=True)],
        "release": decoder.low.tolist(),
        "minimum": decoder.minimum,
        "merge": decoder.merge,
        "refractory": decoder.refractory,
    }


def text_of(kind: str, **fields: Any) -> str:
    """A text message to a client; fields that are None are left out."""
    return json.dumps({"type": kind} | {key: value for key, value in fields.items() if value is not None})


def encode_posteriors(posteriors: NDArray[np.float32]) -> str:
    """``(T, K)`` to the bit: base64 of little-endian floats, row by row."""
    return base64.b64encode(posteriors.astype("<f4", copy=False).tobytes()).decode()


def rows_of(events: Sequence[Event]) -> list[Mapping[str, Any]]:
    """Events with times in ticks; details, if there are any."""
    keys = "label", "start", "end", "peak", "score"
    return [{key: getattr(one, key) for key in (*keys, *["details"] * bool(one.details))} for one in events]
