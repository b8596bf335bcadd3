"""Pages in browsers as the source of streams: the settings of the server, see ``conf/source/browser.yaml``."""

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.errors import ConfigError
from pipeline.sources.source import Policy

KEY = "~/.config/rivulet/server.key"


class Browser:
    """Where the server listens, who may speak to it, and how much of it a client may use."""

    live, resamples, reads = True, False, ()

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: Annotated[int, Field(ge=0, le=65535)] = 8765,
        certificate: str | None = None,
        insecure: bool = False,
        hosts: list[str] | None = None,
        key: str | None = None,
        clients: PositiveInt = 1000,
        per_address: PositiveInt = 8,
        largest: PositiveFloat = 64.0,
        gap: Policy = "reset",
        teach: str | None = None,
        train: list[str] | None = None,
    ) -> None:
        """ConfigError if strangers could listen in, or if the certificate cannot be used."""
        try:
            self.local = ipaddress.ip_address(address).is_loopback
        except ValueError:
            raise ConfigError(
                f"source.address: got {address!r}; expected a number such as 127.0.0.1 or 0.0.0.0"
            ) from None
        if not (self.local or certificate or insecure):
            raise ConfigError(
                f"source.address: {address} can be reached by others; give source.certificate=FILE (PEM with key and "
                "certificate), or a proxy with https before source.address=127.0.0.1, or source.insecure=true"
            )
        self.address, self.port, self.name = address, port, address if self.local else socket.gethostname().lower()
        self.hosts = frozenset(host.lower() for host in ["localhost", self.name, *(hosts or [])])
        self.tls = None if certificate is None else tls_of(Path(certificate).expanduser())
        self.key = Path(key or KEY).expanduser()
        self.clients, self.per_address, self.largest, self.gap = clients, per_address, round(largest * 2**20), gap
        self.teach, self.train = None if teach is None else Path(teach), train or []


def tls_of(path: Path) -> ssl.SSLContext:
    """ConfigError if the file has no key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"source.certificate: {path}: {error}; expected PEM with the key and the certificate"
        ) from None
    return context
