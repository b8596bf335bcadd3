"""What can be asked of the server besides streams: files, events as they come, the model, how it is."""

import asyncio
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from aiohttp import web

from pipeline.serving.classify import Classifier
from pipeline.serving.figures import WAITS
from pipeline.serving.headers import HEADERS
from pipeline.serving.web import MAX_LATE, STALL_SECONDS, Server

MAX_WATCHERS, MAX_WAITING = 16, 256  # of events; events that wait for one who watches
ALIVE_SECONDS = 15.0  # between two signs of life


class Endpoints:
    """Handlers that know the server."""

    def __init__(self, server: Server) -> None:
        self.server, router = server, server.app.router
        router.add_get("/v1/model", server.guarded(self.model))
        router.add_get("/v1/events", server.guarded(self.events))
        router.add_post("/v1/classify", server.guarded(Classifier(server).handle))
        router.add_get("/metrics", server.guarded(self.metrics))
        router.add_get("/healthz", self.health)
        router.add_get("/readyz", self.ready)
        router.add_get("/openapi.json", server.file(Path(__file__).parent / "openapi.json"))

    async def model(self, request: web.Request) -> web.Response:
        """What a welcome says of the model."""
        hall, teach = self.server.hall, {"teach": self.server.settings.teach is not None}
        if hall is None:
            return web.json_response({"error": "there is no model yet"} | teach, status=503)
        return web.json_response(hall.facts | teach)

    async def health(self, request: web.Request) -> web.Response:
        """The program runs."""
        return web.json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """A model, whose self-test has passed, has time for more streams."""
        late = self.server.working.figures.late
        return web.json_response({"late": round(late, 4)}, status=503 if late > MAX_LATE else 200)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """All clients' events, as they become known (Server-Sent Events)."""
        if len(self.server.watchers) >= MAX_WATCHERS:
            raise web.HTTPTooManyRequests(text=f"{MAX_WATCHERS} are watching already", headers={"Retry-After": "5"})
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue = asyncio.Queue[str](MAX_WAITING)
        self.server.watchers.add(queue)
        try:
            while True:
                text = ": alive"
                with suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_SECONDS):
                        text = f"data: {await queue.get()}"
                async with asyncio.timeout(STALL_SECONDS):
                    await response.write(f"{text}\n\n".encode())
        except (ConnectionError, TimeoutError):
            return response  # nobody reads it
        finally:
            self.server.watchers.discard(queue)

    async def metrics(self, request: web.Request) -> web.Response:
        """In the text format of Prometheus."""
        server, hall = self.server, self.server.working
        counts, figures = hall.figures.counts, hall.figures
        rows: list[tuple[str, str, dict[str, float]]] = [
            ("clients", "gauge", {"": len(server.clients)}),
            ("load", "gauge", {"": figures.load}),
            ("late_seconds", "gauge", {"": figures.late}),
            ("input_seconds_total", "counter", {"": counts["ticks"] / hall.model.rate}),
            *((f"{name}_total", "counter", {"": float(counts[name])}) for name in ("events", "gaps", "resumed")),
            ("refused_total", "counter", {f'{{code="{code}"}}': n for code, n in sorted(server.refused.items())}),
        ]
        sums = [*accumulate(figures.waits)]
        bounds = [*map(str, WAITS), "+Inf"]
        waits = {f'_bucket{{le="{bound}"}}': float(n) for bound, n in zip(bounds, sums, strict=True)}
        waits |= {"_sum": figures.waited, "_count": sums[-1]}
        rows.append(("answer_seconds", "histogram", waits))
        lines = []
        for name, kind, values in rows:
            lines.append(f"# TYPE rivulet_{name} {kind}")
            lines += [f"rivulet_{name}{label} {value:g}" for label, value in values.items()]
        return web.Response(text="\n".join(lines) + "\n", headers={"Content-Type": "text/plain; version=0.0.4"})
