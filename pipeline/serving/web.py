"""The server: WebSocket, HTTP and the page's files. Only this file and ``endpoints.py`` know aiohttp.

Who may speak to us: the Host is localhost, a number, or one of ``source.hosts`` (else a stranger's page could call us
by a name of its own), the Origin is the same, and all but the page's own files needs the token.
"""

import asyncio
import ipaddress
import logging
import re
import signal
import socket as sockets
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.serving import messages as said
from pipeline.serving.browser import Browser
from pipeline.serving.door import SPARE, Door, raise_limit
from pipeline.serving.hall import Hall, News
from pipeline.serving.headers import HEADERS
from pipeline.serving.messages import Refused
from pipeline.serving.once import Once
from pipeline.serving.orders import Enter, Gone
from pipeline.serving.seal import Seals, read_key
from pipeline.serving.session import Session
from pipeline.sinks.items import StreamInfo

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png",
    ".json": "application/json", ".ico": "image/x-icon", ".webmanifest": "application/manifest+json",
}  # fmt: skip
KEPT_HEADERS = "Retry-After", "WWW-Authenticate", "Allow"  # of errors
HELLO_SECONDS, HEADER_SECONDS, HEARTBEAT_SECONDS, CLOSE_SECONDS = 5.0, 5.0, 20.0, 2.0
PENALTY_SECONDS = 0.2  # before a refusal: with the cap on connections, it limits how many an address can make us write
STALL_SECONDS, STALL_BYTES = 10.0, 4 << 20  # for which a client may read nothing, and what may wait for it
KERNEL_BYTES = 64 << 10  # that the system may hold for a client
MAX_LATE = 0.2  # mean seconds that blocks wait, beyond which no new stream is begun
MAX_REASON, MAX_HELLO = 120, 1 << 12  # bytes: why a connection ends; hello without a seal
QUIET = logging.getLogger("rivulet.serving")  # aiohttp would print a traceback for each broken request
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Client:
    """A WebSocket. ``send`` never waits: who does not read is cut off."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, session: Session) -> None:
        assert request.transport is not None
        self.socket, self.session, self.transport = socket, session, request.transport
        self.transport.set_write_buffer_limits(high=2 * STALL_BYTES)
        line: sockets.socket = self.transport.get_extra_info("socket")
        line.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, KERNEL_BYTES)  # else megabytes hide that nobody reads
        self.read_at = time.monotonic()  # when nothing waited for it
        self.moved = asyncio.Event()  # there is news
        self.end: Refused | None = None

    async def send(self, text: str) -> None:
        """Send a text."""
        waiting, now = self.transport.get_write_buffer_size(), time.monotonic()
        if not waiting:
            self.read_at = now
        if waiting > STALL_BYTES or now - self.read_at > STALL_SECONDS:
            self.transport.abort()
        elif not self.socket.closed:
            with suppress(ConnectionError):
                await self.socket.send_str(text)


class Server:
    """The network's side of a hall."""

    def __init__(self, settings: Browser, sink: Any, open_model: Callable[..., Any], block: float) -> None:
        """``open_model(checkpoint, live)``: a model and the settings of its decoder; see ``serve``."""
        self.settings, self.sink, self.open_model, self.block = settings, sink, open_model, block
        self.seals = Seals(read_key(settings.key))
        self.once = Once(settings.key.with_name(f"{settings.key.name}.told"))
        self.hall: Hall | None = None
        self.checkpoint: str | None = None
        self.clients: dict[Client, str] = {}  # with their addresses
        self.tasks: set[asyncio.Task[None]] = set()
        self.watchers: set[asyncio.Queue[str]] = set()
        self.refused = Counter[int]()
        self.app = web.Application(middlewares=[self.protect], client_max_size=settings.largest)
        self.app.router.add_get("/v1/stream", self.stream)
        for path in PAGE.iterdir():
            if path.suffix in TYPES:
                self.app.router.add_get(f"/{path.name}", self.file(path))
        self.app.router.add_get("/", self.file(PAGE / "index.html"))
        self.app.router.add_get("/teach", self.file(PAGE / "teach.html"))

    @property
    def working(self) -> Hall:
        """The hall; 503 while there is none."""
        if self.hall is None:
            raise web.HTTPServiceUnavailable(text="there is no model yet")
        return self.hall

    async def serve(self, checkpoint: str | None) -> bool:
        """Serve until a signal; whether it was SIGTERM."""
        self.loop, self.news = asyncio.get_running_loop(), asyncio.Queue[Sequence[News]]()
        self.stopping: asyncio.Future[bool] = self.loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.loop.add_signal_handler(number, self.stop, number == signal.SIGTERM)
        raise_limit(self.settings.clients + SPARE + 64)
        postman = self.loop.create_task(self.deliver())
        runner = web.AppRunner(
            self.app, access_log=None, logger=QUIET, keepalive_timeout=HEADER_SECONDS, handler_cancellation=True,
            shutdown_timeout=CLOSE_SECONDS,
        )  # fmt: skip
        try:
            if checkpoint is not None:
                await self.install(checkpoint)
            self.loop.set_exception_handler(lambda _, what: tell(what["message"], what.get("exception")))
            await runner.setup()
            assert runner.server is not None
            listening = await self.listen(runner.server)
            terminated = await self.stopping
            listening.close()
            return terminated
        finally:
            if self.hall:
                await self.dismiss(self.hall)
            await asyncio.gather(*self.tasks)  # connections that are being closed
            postman.cancel()
            await runner.cleanup()

    async def listen(self, server: web.Server) -> asyncio.Server:
        """Let connections in, and print the address. ConfigError if it is not to be had."""
        tls, place = self.settings.tls, f"{self.settings.address}:{self.settings.port}"
        try:
            listening = await self.loop.create_server(
                lambda: Door(server, self.settings), self.settings.address, self.settings.port, ssl=tls,
                ssl_handshake_timeout=HEADER_SECONDS if tls else None,
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"source.port: {place} is not to be had ({error}); choose another, or 0") from None
        scheme, port = "https" if tls else "http", listening.sockets[0].getsockname()[1]
        print(f"open {scheme}://{self.settings.name}:{port}/#{self.seals.token}", file=sys.stderr, flush=True)
        return listening

    def stop(self, terminated: bool) -> None:
        """A signal; another one is obeyed at once."""
        if not self.stopping.done():
            self.stopping.set_result(terminated)
        for number in (signal.SIGINT, signal.SIGTERM):
            self.loop.remove_signal_handler(number)

    async def install(self, checkpoint: str) -> None:
        """Put a model into the place of the one before, whose clients get their last seals. UserError if there is none
        at ``checkpoint``.
        """
        hall = await asyncio.to_thread(self.open_hall, checkpoint)
        before, self.hall, self.checkpoint = self.hall, None, checkpoint
        if before:
            await self.dismiss(before)
        model = hall.model
        background = hall.facts["background"]
        self.sink.setup([*hall.decoder.told, *background], background)
        if not before:
            self.sink.start(StreamInfo("browser", model.labels, model.rate, model.hop))
        hall.start()
        self.hall = hall

    def open_hall(self, checkpoint: str) -> Hall:
        model, settings, path = self.open_model(checkpoint, True)
        self.sink.check_overwrites([path])
        if model.promise and not settings:
            print(f"false alarms: {model.promise}", file=sys.stderr)
        return Hall(model, self.block, settings, self.sink, self.seals, self.once, self.post)

    async def dismiss(self, hall: Hall) -> None:
        """End a hall; its clients are told."""
        await asyncio.to_thread(hall.stop)
        await asyncio.sleep(0)  # its last news is in the queue now
        while not self.news.empty():
            await asyncio.sleep(0.001)
        if hall.error:
            raise hall.error

    # ---------------------------------------------------------------- news from the hall
    def post(self, news: Sequence[News]) -> None:
        """News, from the hall's thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.news.put_nowait, news)

    async def deliver(self) -> None:
        """News to whom it concerns."""
        while True:
            for one in await self.news.get():
                client = one.client
                if client is None and one.end:
                    if not self.stopping.done():
                        self.stopping.set_result(False)
                elif client is None:
                    for watcher in self.watchers:
                        with suppress(asyncio.QueueFull):
                            watcher.put_nowait(one.text)
                elif client in self.clients:
                    await self.inform(client, one)

    async def inform(self, client: Client, news: News) -> None:
        """News of a client."""
        if news.welcome is not None:
            client.session.welcome(news.welcome)
        if news.answered is not None:
            client.session.answered = news.answered
        if news.text:
            await client.send(news.text)
        if news.end:
            client.end = news.end
            self.keep(self.hang_up(client.socket, news.end))
        client.moved.set()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def hang_up(self, socket: web.WebSocketResponse, end: Refused) -> None:
        """End a connection, with a code; the first one counts."""
        if not socket.closed:
            self.refused[end.code] += end.code != said.ENDED
            await socket.close(code=end.code, message=end.reason.encode()[:MAX_REASON])

    # ---------------------------------------------------------------- clients
    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A client's connection, from its first message to its end."""
        hall, address = self.hall, request.remote or ""
        size = max(*said.MAX_PAYLOAD.values(), hall.seal_size if hall else 0) + MAX_HELLO
        socket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS, heartbeat=HEARTBEAT_SECONDS, compress=False, max_msg_size=size
        )
        await socket.prepare(request)
        try:
            if hall is None and self.checkpoint:
                raise Refused(said.STOPPING, "the server takes another model")
            if hall is None:
                raise Refused(said.NO_MODEL, "there is no model yet")
            if len(self.clients) >= self.settings.clients or self.count(address) >= self.settings.per_address:
                raise Refused(said.BUSY, "there are too many clients; come again in some seconds")
            session = Session(hall.model.spec, hall.credit, self.settings.gap, self.seals.fits, time.monotonic())
            client = Client(socket, request, session)
            self.clients[client] = address
            try:
                await self.converse(client, hall)
            finally:
                del self.clients[client]
                hall.put(client, Gone())
        except Refused as error:
            await asyncio.sleep(PENALTY_SECONDS)
            await self.hang_up(socket, error)
        finally:
            if request.transport:  # which would wait for one who reads nothing
                self.loop.call_later(CLOSE_SECONDS, request.transport.abort)
        return socket

    async def converse(self, client: Client, hall: Hall) -> None:
        """What a client says, as orders to the hall."""
        session, socket, by = client.session, client.socket, self.loop.time() + HELLO_SECONDS
        while client.end is None:
            message = await (socket.receive() if session.greeted else first_word(socket, by))
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            now = time.monotonic()
            for order in session.take(message.data, now):
                if isinstance(order, str):
                    await client.send(order)
                    continue
                if isinstance(order, Enter) and order.hello.resume is None and hall.figures.late > MAX_LATE:
                    raise Refused(said.BUSY, "the server has enough to do; come again in some seconds")
                if hall is not self.hall:
                    raise Refused(said.STOPPING, "the server has another model now")
                hall.put(client, order)
            if (pause := session.pause(now)) > 0:
                await asyncio.sleep(pause)
            while not session.has_credit and client.end is None and not socket.closed:
                client.moved.clear()
                await client.moved.wait()
        await self.hang_up(socket, client.end)  # else aiohttp would, with 1000

    def count(self, address: str) -> int:
        """How many clients an address has."""
        return sum(one == address for one in self.clients.values())

    # ---------------------------------------------------------------- who may speak to us
    @web.middleware
    async def protect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """403 for other Hosts and Origins; errors as JSON, ``{"error": sentence}``."""
        origin, ours = request.headers.get("Origin"), (f"http://{request.host}", f"https://{request.host}")
        try:
            if not self.is_ours(request.host) or (origin is not None and origin not in ours):
                raise web.HTTPForbidden(text=f"{origin or request.host:.80} is not this server; see source.hosts")
            response = await handler(request)
        except web.HTTPException as error:
            await asyncio.sleep(PENALTY_SECONDS)
            response = web.json_response({"error": error.text}, status=error.status)
            response.headers.update({key: error.headers[key] for key in KEPT_HEADERS if key in error.headers})
        except Exception as error:
            tell(request.path, error)
            response = web.json_response({"error": "the server has failed"}, status=500)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def is_ours(self, host: str) -> bool:
        """Whether a Host is a name of ours: localhost, a number, or one of ``source.hosts``."""
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        try:
            return name.lower() in self.settings.hosts or bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return False

    def guarded(self, handler: Handler) -> Handler:
        """A handler for who has the token: ``Authorization: Bearer TOKEN``. 401 for others."""

        async def handle(request: web.Request) -> web.StreamResponse:
            kind, _, token = request.headers.get("Authorization", "").partition(" ")
            if kind != "Bearer" or not self.seals.fits(token):
                raise web.HTTPUnauthorized(
                    text="expected the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
                )
            return await handler(request)

        return handle

    def file(self, path: Path) -> Handler:
        """A handler that gives a file of the page."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                response = web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8")
            except OSError:
                raise web.HTTPNotFound from None
            response.enable_compression()
            return response

        return handle


async def first_word(socket: web.WebSocketResponse, by: float) -> WSMessage:
    """A message before the hello. Refused if it comes too late."""
    try:
        async with asyncio.timeout_at(by):  # that of receive begins anew at a ping
            return await socket.receive()
    except TimeoutError:
        raise Refused(said.LATE, f"no hello within {HELLO_SECONDS:g} s") from None


def tell(what: str, error: BaseException | None) -> None:
    """A fault of ours, in a line: strangers must not fill the log."""
    print(f"error: {clean(f'{what}: {error!r}')[:300]}", file=sys.stderr)
