"""Connections are let in before anything of them is read, unless there are too many, of all or of an address."""

import asyncio
import resource
from contextlib import suppress

from aiohttp import web

from pipeline.serving.browser import Browser

SPARE = 32  # connections besides those of clients


class Door(asyncio.Protocol):
    """Lets a connection in, unless there are too many, of all or of its address."""

    def __init__(self, server: web.Server, settings: Browser) -> None:
        self.server, self.settings = server, settings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it over to aiohttp, or end it."""
        assert isinstance(transport, asyncio.Transport)
        address, settings = transport.get_extra_info("peername")[:1], self.settings
        others = [one.peername[:1] for one in self.server.connections if one.peername]
        if len(others) >= settings.clients + SPARE or others.count(address) >= settings.per_address + SPARE:
            transport.abort()
            return
        inside = self.server()
        transport.set_protocol(inside)
        inside.connection_made(transport)


def raise_limit(files: int) -> None:
    """Let this process have so many files open, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(files, hard)), hard))
