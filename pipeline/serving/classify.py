"""A file that is sent as a whole: decoded by a process that may die, classified as ``source=files`` does it."""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO

from aiohttp import web

from pipeline.batch.batch import Predictor, Work
from pipeline.batch.files import Limits
from pipeline.batch.listing import Entry
from pipeline.serving.web import Server
from pipeline.sinks.items import Row

UPLOAD_SECONDS = 60.0  # that a file may take to arrive
MAX_FILES = 4  # that arrive or wait at a time
LIMITS = Limits(longest=3600.0)
OUTPUTS = "labels", "events"


class Classifier:
    """One file after another, in a thread of its own. What decodes is started with the first."""

    def __init__(self, server: Server) -> None:
        self.server, self.thread, self.files = server, ThreadPoolExecutor(1), 0
        self.kept: dict[str, tuple[str, Predictor]] = {}  # by output, with the checkpoint
        server.app.on_cleanup.append(self.close)

    async def handle(self, request: web.Request) -> web.Response:
        """The row of the file that is the body; ``output=events`` finds events in it."""
        output, checkpoint = request.query.get("output", "labels"), self.server.checkpoint
        if output not in OUTPUTS:
            raise web.HTTPBadRequest(text=f"output={output!r:.40}: expected labels or events")
        if checkpoint is None:
            raise web.HTTPServiceUnavailable(text="there is no model yet")
        if self.files >= MAX_FILES:
            raise web.HTTPTooManyRequests(text=f"{MAX_FILES} files are being classified", headers={"Retry-After": "1"})
        self.files += 1
        try:
            with tempfile.NamedTemporaryFile() as file:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    await self.receive(request, file)
                work = asyncio.get_running_loop().run_in_executor(
                    self.thread, self.classify, checkpoint, output, file.name
                )
                return web.json_response(await asyncio.shield(work))
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the file has not arrived within {UPLOAD_SECONDS:g} s") from None
        finally:
            self.files -= 1

    async def receive(self, request: web.Request, file: IO[bytes]) -> None:
        """The body, into a file."""
        most = self.server.settings.largest
        async for chunk in request.content.iter_chunked(1 << 16):
            file.write(chunk)
            if file.tell() > most:
                raise web.HTTPRequestEntityTooLarge(most, file.tell(), text=f"expected {most} bytes at most")
        file.flush()

    def classify(self, checkpoint: str, output: str, path: str) -> Row:
        """The row of a file."""
        known, predictor = self.kept.get(output, ("", None))
        if predictor is None or known != checkpoint:
            if predictor is not None:
                predictor.close()
            model, settings, _ = self.server.open_model(checkpoint, output == "events")
            predictor = Predictor(Work(model, 1, 1, LIMITS, settings if output == "events" else None))
            self.kept[output] = checkpoint, predictor
        [(_, result)] = predictor.results([(0, Entry(path))])
        return replace(result, path="", reason=result.reason.replace(path, "the file")).row()

    async def close(self, app: web.Application) -> None:
        """End the thread and the processes."""
        self.thread.shutdown(cancel_futures=True)
        for _, predictor in self.kept.values():
            predictor.close()
