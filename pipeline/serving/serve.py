"""The server as a whole: its streams, its endpoints, and the pages that teach."""

import asyncio
from collections.abc import Callable
from typing import Any

from pipeline.serving.browser import Browser
from pipeline.serving.endpoints import Endpoints
from pipeline.serving.web import Server


def serve(settings: Browser, sink: Any, checkpoint: str | None, open_model: Callable[..., Any], block: float) -> bool:
    """Serve until a signal; whether it was SIGTERM. ``open_model(checkpoint, live)``: a model, its decoder's settings,
    and its file. ``block``: seconds computed at a time. Raises what has ended the hall.
    """
    server = Server(settings, sink, open_model, block)
    Endpoints(server)
    if settings.teach:
        from pipeline.serving.teach import routes

        routes(server, settings.teach, settings.train)
    return asyncio.run(server.serve(checkpoint))
