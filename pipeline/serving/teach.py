"""What pages may ask of the folder that they teach in: /teach/..., all behind the token (docs/teach.md)."""

import asyncio
import mimetypes
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web

from pipeline.core.errors import UserError
from pipeline.serving import teach_folder
from pipeline.serving.darkroom import decoded
from pipeline.serving.messages import MAX_PAYLOAD, PICTURE, Refused, check_picture
from pipeline.serving.teach_folder import BACKGROUND, TeachFolder, count
from pipeline.serving.teach_training import Training, words_are_known

if TYPE_CHECKING:
    from pipeline.serving.web import Server

RATES = range(8_000, 48_001)  # Hz
MAX_SECONDS, MAX_BACKGROUND_SECONDS = 60, 600  # of a clip
MAX_PICTURES, MAX_PICTURES_BYTES = 600, 32 << 20  # of a clip
MAX_TAKE = 9_999
SAMPLES = "audio/l16"  # s16le, mono; else pictures, each behind its time in milliseconds and its size
PICTURE_HEADER = struct.Struct("<II")
AT_ONCE = 4  # clips that are received
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Teach:
    """The handlers of a folder and its trainings."""

    def __init__(self, server: "Server", folder: TeachFolder, training: Training) -> None:
        self.server, self.folder, self.training = server, folder, training
        self.receiving, self.installing = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def state(self, request: web.Request) -> web.Response:
        """All that the page shows."""
        return web.json_response(await asyncio.to_thread(self.look))

    def look(self) -> dict[str, Any]:
        """The folder and the trainings as they are now."""
        clips = self.folder.clips()
        classes = [
            {"label": label, **count(own := [clip for clip in clips if clip.label == label]),
             "list": [{"name": c.name, "seconds": c.seconds, "take": c.take, "place": c.place} for c in own]}
            for label in [BACKGROUND, *sorted({clip.label for clip in clips} - {BACKGROUND})]
        ]  # fmt: skip
        return {
            "classes": classes, "missing": teach_folder.missing(clips), "wanted": teach_folder.WANTED,
            "seconds": teach_folder.WANTED_SECONDS, "pictures": any(clip.pictures for clip in clips),
            "words": words_are_known(), "folder": str(self.folder.root), "training": self.training.state(),
            "installed": Path(self.server.checkpoint or "").name,
        }  # fmt: skip

    async def add(self, request: web.Request) -> web.Response:
        """A clip: ?label=&place=&take=, and for sound &rate=."""
        label, place = request.query.get("label", ""), request.query.get("place", "")
        take = number_of(request, "take", range(1, MAX_TAKE + 1))
        async with self.receiving:
            if request.content_type == SAMPLES:
                rate = number_of(request, "rate", RATES)
                longest = MAX_BACKGROUND_SECONDS if label == BACKGROUND else MAX_SECONDS
                data = await receive(request, 2 * rate * longest)
                samples = np.frombuffer(data, "<i2", len(data) // 2).astype(np.int16)
                if not len(samples):
                    raise UserError("the clip is empty")
                path = await asyncio.to_thread(self.folder.add_sound, label, place, take, samples, rate)
            else:
                data = await receive(request, MAX_PICTURES_BYTES)
                jpegs, times = pictures_of(data)
                images = map(decoded, jpegs)  # one at a time, in the thread
                path = await asyncio.to_thread(self.folder.add_pictures, label, place, take, images, times)
        return web.json_response({"label": path.parent.name, "name": path.name})

    async def give(self, request: web.Request) -> web.Response:
        """A clip as it is on the disk."""
        path = await asyncio.to_thread(self.folder.find, *clip_of(request))
        return file_response(path)

    async def move(self, request: web.Request) -> web.Response:
        """A clip to another class: ?to=."""
        path = await asyncio.to_thread(self.folder.move, *clip_of(request), request.query.get("to", ""))
        return web.json_response({"label": path.parent.name, "name": path.name})

    async def delete(self, request: web.Request) -> web.Response:
        """A clip."""
        await asyncio.to_thread(self.folder.delete, *clip_of(request))
        return web.json_response({})

    async def train(self, request: web.Request) -> web.Response:
        """Begin: ?recipe=, and &again=1 with the weights of the last run."""
        if why := teach_folder.missing(await asyncio.to_thread(self.folder.clips)):
            raise UserError(why)
        recipe, again = request.query.get("recipe", ""), request.query.get("again") == "1"
        await asyncio.to_thread(self.training.start, recipe, again)
        return web.json_response({})

    async def stop(self, request: web.Request) -> web.Response:
        """End the training."""
        await asyncio.to_thread(self.training.stop)
        return web.json_response({})

    async def install(self, request: web.Request) -> web.Response:
        """Put a finished run's model into the place of the one that answers: ?run=."""
        path = self.training.find(request.query.get("run", ""))
        async with self.installing:
            await self.server.install(str(path.parent))
        return web.json_response({})

    async def take_home(self, request: web.Request) -> web.Response:
        """A file of a finished run."""
        return file_response(self.training.find(request.match_info["run"], request.match_info["name"]))

    async def begin(self, app: web.Application) -> None:
        """Without a model, the server takes the newest one of the folder."""
        if self.server.checkpoint is None and (runs := self.training.finished()):
            try:
                await self.server.install(str(runs[-1]))
            except UserError as error:
                print(f"note: {runs[-1]} is not used: {error}", file=sys.stderr)

    async def end(self, app: web.Application) -> None:
        """No training goes on without a page to look at it."""
        await asyncio.to_thread(self.training.stop, "The server ended.")


def routes(server: "Server", folder: Path, more: Sequence[str] = ()) -> None:
    """Add all of this to a server; ``more`` arguments for ``train.py``. OSError if the folder cannot be made."""
    there = TeachFolder(folder)
    teach = Teach(server, there, Training(there.root, more))
    for method, path, handler in (
        ("GET", "/teach/state", teach.state),
        ("POST", "/teach/clips", teach.add),
        ("GET", "/teach/clips/{label}/{name}", teach.give),
        ("POST", "/teach/clips/{label}/{name}", teach.move),
        ("DELETE", "/teach/clips/{label}/{name}", teach.delete),
        ("POST", "/teach/train", teach.train),
        ("POST", "/teach/stop", teach.stop),
        ("POST", "/teach/install", teach.install),
        ("GET", "/teach/runs/{run}/{name}", teach.take_home),
    ):
        server.app.router.add_route(method, path, server.guarded(told(handler)))
    server.app.on_startup.append(teach.begin)
    server.app.on_shutdown.append(teach.end)


def told(handler: Handler) -> Handler:
    """A handler whose errors are sentences for people, with the status 400, or 507 for a disk."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (UserError, Refused) as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=f"cannot write the folder: {error.strerror or error}") from None

    return handle


def file_response(path: Path) -> web.Response:
    """A file to be kept, never to be shown as a page."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return web.Response(body=path.read_bytes(), content_type=kind, headers={"Content-Disposition": "attachment"})


def clip_of(request: web.Request) -> tuple[str, str]:
    """Label and name of the clip that is asked for."""
    return request.match_info["label"], request.match_info["name"]


def number_of(request: web.Request, key: str, allowed: range) -> int:
    """A number of the query. UserError for another one."""
    text = request.query.get(key, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) not in allowed:
        raise UserError(f"{key}: got {text[:20]!r}; expected {allowed[0]} to {allowed[-1]}")
    return int(text)


async def receive(request: web.Request, most: int) -> bytes:
    """A body. UserError if it has more bytes."""
    data = bytearray()
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > most:
            raise UserError(f"the clip is too long: more than {most / 2**20:.0f} MiB")
    return bytes(data)


def pictures_of(data: bytes) -> tuple[list[bytes], list[float]]:
    """JPEGs and their times in seconds. UserError or Refused if they are none."""
    jpegs, times, at = list[bytes](), list[float](), 0
    while at < len(data) and len(jpegs) < MAX_PICTURES:
        time, size = PICTURE_HEADER.unpack_from(data, at) if at + PICTURE_HEADER.size <= len(data) else (0, 0)
        at += PICTURE_HEADER.size
        jpeg = data[at : at + size]
        if not 0 < size <= MAX_PAYLOAD[PICTURE] or len(jpeg) < size or (times and time / 1000 <= times[-1]):
            raise UserError("pictures that are cut off, too large, or not in order of time")
        if time > 1000 * MAX_SECONDS:
            raise UserError(f"a picture at {time / 1000:g} s; a clip has {MAX_SECONDS} s at most")
        check_picture(jpeg)
        jpegs.append(jpeg)
        times.append(time / 1000)
        at += size
    if len(jpegs) < 2:
        raise UserError("a clip has at least two pictures")
    return jpegs, times
