"""Send a recording or a microphone to a server elsewhere: ``python -m pipeline.serving.client URL FILE|mic [NAME]``.

``URL`` is the address that the server printed, with its token. Events are printed as JSON lines. If the connection is
lost, or the server dies, the stream goes on where it was, bit for bit, from the newest seal and what was sent since.
"""

import asyncio
import json
import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import aiohttp

from pipeline.core import program as ending
from pipeline.core.errors import UserError
from pipeline.media.input_spec import InputSpec
from pipeline.serving import messages as said
from pipeline.sources.file import File
from pipeline.sources.microphone import Microphone
from pipeline.sources.source import Gap, Piece

# after these another attempt would not help
FINAL = {said.MALFORMED, said.TOKEN, said.TAKEN_OVER, said.TOO_LARGE, said.HOLE, aiohttp.WSCloseCode.MESSAGE_TOO_BIG}
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 5.0  # before that: twice as long each time
MAX_SAMPLES = said.MAX_PAYLOAD[said.SOUND] // 4  # of a frame


class Sender:
    """A source's sound on its way to a server."""

    def __init__(self, url: str, what: str, name: str) -> None:
        self.address, _, self.token = url.partition("/#")
        self.source = Microphone(buffer=60.0) if what == "mic" else File(what)
        self.name, self.seal, self.next, self.sent, self.answered = name, None, 0, 0, 0
        self.pieces: Iterator[Piece | Gap] | None = None
        self.coming: asyncio.Task[Piece | Gap | None] | None = None  # the next of them, over all connections
        self.error: UserError | None = None  # of the source
        self.log: deque[tuple[int, bytes]] = deque()  # frames that no seal holds, with their ends
        self.printed = deque[tuple[str, int]](maxlen=1000)  # events, of which the newest may come again
        self.moved = asyncio.Event()

    async def run(self) -> None:
        """Until all is answered. UserError if the server refuses."""
        wait = FIRST_WAIT_SECONDS
        async with aiohttp.ClientSession() as session:
            while True:
                code, seal = 0, self.seal
                try:
                    async with session.ws_connect(f"{self.address}/v1/stream", heartbeat=20.0, max_msg_size=0) as web:
                        code = await self.talk(web)
                except (aiohttp.ClientError, OSError) as error:
                    print(f"no connection: {error}", file=sys.stderr)
                if self.error:
                    raise self.error
                if code == said.ENDED:
                    return
                if code in FINAL:
                    raise UserError(f"the server has ended the connection: {code}")
                wait = FIRST_WAIT_SECONDS if self.seal != seal else min(2 * wait, LONGEST_WAIT_SECONDS)
                await asyncio.sleep(wait * random.uniform(0.5, 1))

    async def talk(self, web: aiohttp.ClientWebSocketResponse) -> int:
        """One connection; the code that ended it."""
        hello = {"token": self.token, "name": self.name, "resume": self.seal, "answered": self.next}
        first = self.log[0][0] if self.log else self.sent
        await web.send_json({"type": "hello", "tick": first, "posteriors": False} | hello)
        sending = None
        async for message in web:
            if message.type is not aiohttp.WSMsgType.TEXT:  # no answer to a ping, above all
                break
            row = json.loads(message.data)
            if row["type"] == "welcome":
                if row["why"]:
                    print(f"begun anew: {row['why']}", file=sys.stderr)
                if not row["sound"]:
                    raise UserError("the server's model takes pictures alone; this program sends sound")
                self.pieces = self.pieces or self.source.pieces(InputSpec(row["sound"]))
                sending = asyncio.create_task(self.send(web, row["credit"]))
            if row["type"] == "answer":
                self.answered, self.next = row["ack"], row["next"]
                for event in row["events"]:
                    if (event["label"], event["start"]) not in self.printed:
                        self.printed.append((event["label"], event["start"]))
                        print(json.dumps(event), flush=True)
            if "seal" in row:
                self.seal, tick = row["seal"], row.get("tick", row.get("from"))
                while self.log and self.log[0][0] <= tick:
                    self.log.popleft()
            self.moved.set()
        if sending:
            sending.cancel()
        return web.close_code or 0

    async def send(self, web: aiohttp.ClientWebSocketResponse, credit: int) -> None:
        """What may be unknown to the server, and then what comes."""
        frames: list[tuple[int, bytes]] | None = list(self.log)
        with suppress(ConnectionError):
            while frames is not None:
                for _, data in frames:
                    await web.send_bytes(data)
                while self.sent - self.answered > credit:
                    self.moved.clear()
                    await self.moved.wait()
                frames = await self.more()
            await (web.close() if self.error else web.send_json({"type": "end"}))

    async def more(self) -> list[tuple[int, bytes]] | None:
        """The next frames of the source; None at its end."""
        assert self.pieces is not None
        self.coming = self.coming or asyncio.create_task(asyncio.to_thread(next, self.pieces, None))
        try:
            item = await asyncio.shield(self.coming)
        except UserError as error:
            self.error, item = error, None
        self.coming = None
        if item is None:
            return None
        frames = [(tick, data) for data, tick in frames_of(item, self.sent)]
        self.sent = frames[-1][0] if frames else self.sent
        self.log += frames
        return frames


def frames_of(item: Piece | Gap, tick: int) -> Iterator[tuple[bytes, int]]:
    """A piece or a gap from a tick on, as frames with their ends."""
    if isinstance(item, Gap):
        payload = item.why.encode()[: said.MAX_PAYLOAD[said.GAP]]
        yield said.HEADER.pack(said.GAP, 0, 0, item.ticks, tick) + payload, tick + item.ticks
        return
    for start in range(0, len(item.x[0]), MAX_SAMPLES):
        samples = item.x[0][start : start + MAX_SAMPLES].astype("<f4", copy=False)
        header = said.HEADER.pack(said.SOUND, said.FLOATS, 0, len(samples), tick + start)
        yield header + samples.tobytes(), tick + start + len(samples)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    name = arguments[2] if len(arguments) == 3 else ""
    return ending.guard(lambda: asyncio.run(Sender(arguments[0], arguments[1], name).run()) or 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
