"""What a stream remembers, sealed for the client to keep: any server with the same key goes on from it.

HMAC-SHA256 over expiry, session, tick, the time at which the stream began, and the snapshot. Nothing of it is read
before the seal is found right, in constant time, so that a snapshot comes from a server with the key or not at all.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import ConfigError

LIFETIME_SECONDS = 3600
KEY_BYTES = 32
HEAD = struct.Struct("<Q8sQd")


class Sealed(NamedTuple):
    """A stream's ``snapshot`` at ``tick`` of a ``session`` (16 hex digits), that ``began`` then (since 1970)."""

    session: str
    tick: int
    began: float
    snapshot: bytes


class SealError(Exception):
    """A seal that cannot be used; the text says why."""


class Seals:
    """Seals of one key, and the ``token`` that goes with it."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.token = base64.urlsafe_b64encode(self.digest(b"token")[:18]).decode()

    def digest(self, data: bytes) -> bytes:
        return hmac.digest(self.key, data, hashlib.sha256)

    def seal(self, sealed: Sealed, now: float) -> str:
        """Text for ``open``, for an hour from ``now`` (seconds after 1970) on."""
        head = HEAD.pack(int(now) + LIFETIME_SECONDS, bytes.fromhex(sealed.session), sealed.tick, sealed.began)
        data = head + sealed.snapshot
        return base64.b64encode(self.digest(b"seal" + data) + data).decode()

    def open(self, text: str, now: float) -> Sealed:
        """What was sealed. SealError if it was not with this key, was changed or is too old."""
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            found = b""
        mac, data = found[:32], found[32:]
        if len(data) < HEAD.size or not hmac.compare_digest(mac, self.digest(b"seal" + data)):
            raise SealError("the seal is not of this server")
        expiry, session, tick, began = HEAD.unpack_from(data)
        if expiry < now:
            raise SealError("the seal is older than an hour")
        return Sealed(session.hex(), tick, began, data[HEAD.size :])

    def fits(self, token: str) -> bool:
        """Whether a client knows the token, compared in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def read_key(path: Path) -> bytes:
    """The key in a file, which is made with mode 0600 if it is not there. ConfigError if it is none, or if others can
    read it.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent) as file, suppress(FileExistsError):  # whose mode is 0600
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.link(file.name, path)  # whole, or not at all
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"source.key: others may read {path}; expected mode 0600: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigError(f"source.key: {path} has {len(key)} bytes; expected {KEY_BYTES}; remove it to make a new one")
    return key
