"""How many clients does the server answer in time, what does one cost, how soon does it go on after kill -9?

    python benchmarks/serving.py load [CLIENTS ...] [--seconds 20]     each sends 100 ms of sound every 100 ms
    python benchmarks/serving.py kill [TIMES]                         kill -9, start again; until the next answer
    python benchmarks/serving.py idle [CLIENTS]                       memory of clients that send nothing
    python benchmarks/serving.py abuse                                neighbours of clients that do all that is wrong
    python benchmarks/serving.py day [HOURS]                          clients come, stall, vanish, come back

The model is that of benchmarks/streams.py: log-mel (64), two GRUs of 128, computed by its graph. The server is infer.py, as a
program of its own; the clients are one other process on the same machine: plain sockets, whose frames are made before.

load: the wait of a frame is the time from its sending to the arrival of the answer that holds it, on the clock of the clients' process.
How much the server's two threads computed, and waited for a core, is what the system says (/proc). On a machine that others use, waits
are longer than they have to be.
day: HOURS of sound in all, from 40 clients at a time at up to 4 times real time. A visit lasts 1 to 60 s of sound; then the client ends,
vanishes without a word, stalls (reads nothing) and vanishes, or comes back with its seal.
"""

import asyncio
import json
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import aiohttp
import numpy as np
from streams import plain_model  # beside this file
from table import report

from pipeline.exporting.graph import to_graph

BLOCK = 1600  # samples
SOUND = (np.random.default_rng(0).standard_normal(BLOCK * 40) * 3000).astype(np.int16)
ACK = re.compile(rb'"ack": (\d+)')
WARM_SECONDS = 4.0


class Program:
    """The server."""

    def __init__(self, folder):
        self.folder, self.port = Path(folder), 0
        model = plain_model()
        (self.folder / "model.onnx").write_bytes(to_graph(model, BLOCK, model.config["head"].get("window")))
        self.start()

    def start(self):
        told = self.folder / "told"
        settings = [
            "source.key=" + str(self.folder / "key"),
            f"source.port={self.port}",
            "source.clients=5000",
            "source.per_address=5000",
        ]
        with told.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "infer.py"), f"checkpoint={self.folder / 'model.onnx'}", "source=browser", *settings,
                 "sink=jsonl", f"sink.jsonl.path={self.folder / 'events.jsonl'}"], stdout=file, stderr=file, cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        while "/#" not in told.read_text():
            assert self.process.poll() is None, told.read_text()
            time.sleep(0.01)
        address, self.token = told.read_text().split("/#")
        self.port, self.token = int(address.rpartition(":")[2]), self.token.strip()

    def threads(self):
        """Seconds for which each thread has computed, and those for which it has waited for a core."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return {int(task.name): np.array((task / "schedstat").read_text().split()[:2], float) / 1e9 for task in tasks}

    def cpu(self):
        """Seconds that the program has computed."""
        return sum(computed for computed, _ in self.threads().values())

    def resident(self):
        """Bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def packed(opcode, data):
    """A frame of RFC 6455 to a server, the mask being 0."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return bytes([0x80 | opcode]) + size + bytes(4) + data


class Line:
    """A client: a socket, what it has sent and when, and what it waits for."""

    def __init__(self, program):
        self.socket = socket.create_connection(("127.0.0.1", program.port))
        self.socket.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.socket.sendall(packed(1, json.dumps({"type": "hello", "token": program.token}).encode()))
        self.tick, self.sent, self.waits, self.rest = 0, {}, [], b""
        while b'"seal"' not in self.rest or not self.rest.endswith(b"}"):
            more = self.socket.recv(1 << 16)
            if not more:
                raise SystemExit("error: the server has enough to do, and lets no more clients in")
            self.rest += more
        self.rest = b""
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, now):
        at = self.tick % len(SOUND)
        frame = struct.pack("<BBHIQ", 1, 0, 0, BLOCK, self.tick) + SOUND[at : at + BLOCK].tobytes()
        self.tick += BLOCK
        self.sent[self.tick] = now
        self.socket.send(packed(2, frame))

    def read(self, now):
        data = self.rest + self.socket.recv(1 << 18)
        for found in ACK.finditer(data):
            sent = self.sent.pop(int(found[1]), None)
            if sent is not None:
                self.waits.append((sent, now - sent))
        self.rest = data[-12:] if not data.endswith(b"}") else b""


def load(program, counts, seconds):
    rows = []
    for count in counts:
        lines = [Line(program) for _ in range(count)]
        readable = selectors.DefaultSelector()
        for line in lines:
            readable.register(line.socket, selectors.EVENT_READ, line)
        began = time.monotonic()
        due = [(began + 0.1 * number / count, line) for number, line in enumerate(lines)]
        number, before = 0, None
        while (now := time.monotonic()) < began + WARM_SECONDS + seconds:
            if before is None and now > began + WARM_SECONDS:
                before, own = program.threads(), time.process_time()
            at, line = due[number % count]
            if now >= at + 0.1 * (number // count):
                line.send(now)
                number += 1
                continue
            for key, _ in readable.select(max(0.0, at + 0.1 * (number // count) - now)):
                key.data.read(time.monotonic())
        after, own = program.threads(), time.process_time() - own
        used = {task: (after[task] - before.get(task, 0.0)) / seconds for task in after}
        network = used.pop(program.process.pid)
        others = [used[task] for task in sorted(used) if used[task][0] > 0.01]  # the hall began before its batches
        waits = np.array([wait for line in lines for at, wait in line.waits if at > began + WARM_SECONDS]) * 1000
        late = sum(at < time.monotonic() - 1 for line in lines for at in line.sent.values())
        p50, p99 = np.quantile(waits, [0.5, 0.99])
        cost = 1e6 * sum(one[0] for one in [network, *others]) / count
        row = [
            f"{p50:.1f}",
            f"{p99:.1f}",
            f"{waits.max():.0f}",
            late,
            f"{network[0]:.2f}",
            " + ".join(f"{one[0]:.2f}" for one in others),
            f"{own / seconds:.2f}",
        ]
        rows.append([count, *row, f"{network[1]:.2f}", " + ".join(f"{one[1]:.2f}" for one in others), f"{cost:.0f}"])
        print(rows[-1], flush=True)
        for line in lines:
            line.socket.close()
        time.sleep(2)
    columns = ["clients", "p50 ms", "p99 ms", "max ms", "late", "network", "hall, its batches", "clients'", "network waits", "theirs", "us a client and second"]  # fmt: skip
    note = (
        f"100 ms of sound each 100 ms from each client, {seconds:g} s; ms from sending to answer; late: after 1 s or never; cores that the "
        "server's threads and the clients' process used; seconds a second for which those threads waited for a core (others had it)"
    )
    report("serving_load", columns, rows, f"{note}; load of the machine {os.getloadavg()[0]:.1f}")


async def kill(program, times):
    from serving import Told, sound_frames, visiting

    program.origin, rows = f"http://127.0.0.1:{program.port}", []
    wave, told, tick = np.tile(SOUND, 40), Told(), 0
    for number in range(times):
        async with visiting(program, {"resume": told.seal, "answered": told.next} if told.seal else {}) as (
            web,
            welcome,
        ):
            told.seal = welcome["seal"]
            for one in sound_frames(wave[welcome["from"] : welcome["from"] + 48_000], BLOCK, welcome["from"]):
                await web.send_bytes(one)
                await asyncio.sleep(0.1)
            await told.until(web, len(welcome["labels"]), lambda told, tick=tick: told.tick > tick, 60)
        tick, known = told.tick, told.next
        program.process.kill()
        program.process.wait()
        began, restarting = time.monotonic(), asyncio.create_task(asyncio.to_thread(program.start))
        while told.next <= known:
            try:
                async with visiting(program, {"resume": told.seal, "answered": told.next}) as (web, welcome):
                    assert welcome["resumed"]
                    for one in sound_frames(wave[welcome["from"] : known * 160 + 8000], BLOCK, welcome["from"]):
                        await web.send_bytes(one)
                    await told.until(web, len(welcome["labels"]), lambda told, known=known: told.next > known, 60)
            except OSError:
                await asyncio.sleep(0.05)
        wall = time.monotonic() - began
        await restarting
        rows.append([number + 1, f"{wall:.2f}", f"{program.cpu():.2f}", f"{os.getloadavg()[0]:.1f}"])
        print(rows[-1], flush=True)
    report(
        "serving_kill",
        ["kill", "seconds to the next answer", "of CPU time of the server", "load"],
        rows,
        "kill -9, start again, resume by the seal",
    )


def abuse(program, clients=50, turns=6, seconds=5.0):
    """Neighbours' waits by turns without and with abusers, who have the token and one process of low priority."""
    found = {False: [], True: []}
    for number in range(2 * turns):
        bad = None
        if number % 2:
            bad = subprocess.Popen(
                ["nice", "-n", "10", sys.executable, __file__, "abusers", str(program.port), program.token]
            )
            time.sleep(3)
        found[bool(number % 2)].append(waits_of(program, clients, seconds))
        if bad:
            bad.kill()
            bad.wait()
    rows = []
    for abused, waits in found.items():
        both = np.concatenate(waits)
        p50, p99 = np.quantile(both, [0.5, 0.99])
        rows.append(["abused" if abused else "undisturbed", f"{p50:.2f}", f"{p99:.1f}", len(both)])
    note = f"waits of {clients} clients, ms, {turns} times {seconds:g} s by turns; load of the machine {os.getloadavg()[0]:.1f}"
    report("serving_abuse", ["", "p50 ms", "p99 ms", "answers"], rows, note)


def abusers(port, token):
    """Floods of pings and frames of one sample, a client that reads nothing, garbage, wrong tokens: again and again."""
    port, rng = int(port), random.Random(0)

    class Where:
        pass

    where = Where()
    where.port, where.token = port, token
    lines, ping = [Line(where) for _ in range(8)], packed(1, b'{"type": "ping", "time": 0}')
    while True:
        for number, line in enumerate(lines):
            try:
                if number % 2:
                    line.socket.send(ping * 20)
                else:
                    for _ in range(20):
                        line.socket.send(packed(2, struct.pack("<BBHIQ", 1, 0, 0, 1, line.tick) + b"ab"))
                        line.tick += 1
                if number > 3:
                    line.socket.recv(1 << 18)
            except BlockingIOError:
                pass
            except OSError:
                lines[number] = Line(where)
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n" + packed(rng.choice([1, 2]), rng.randbytes(100)))  # fmt: skip
            time.sleep(0.01)


def waits_of(program, count, seconds):
    """Milliseconds from sending to the answer, of so many clients in their turns."""
    lines, readable = [Line(program) for _ in range(count)], selectors.DefaultSelector()
    for line in lines:
        readable.register(line.socket, selectors.EVENT_READ, line)
    began, number = time.monotonic(), 0
    while (now := time.monotonic()) < began + 1 + seconds:
        at = began + 0.1 * number / count
        if now >= at:
            lines[number % count].send(now)
            number += 1
            continue
        for key, _ in readable.select(max(0.0, at - now)):
            key.data.read(time.monotonic())
    for line in lines:
        line.socket.close()
    return np.array([1000 * wait for line in lines for at, wait in line.waits if at > began + 1])


def idle(program, count):
    first = [Line(program) for _ in range(20)]
    time.sleep(3)
    before = program.resident()
    lines = [Line(program) for _ in range(count)]
    time.sleep(3)
    each = (program.resident() - before) / count / 1000
    report(
        "serving_idle",
        ["clients", "kB each"],
        [[count, f"{each:.1f}"]],
        "resident memory of the server for clients that send nothing",
    )
    return first, lines


async def visit(program, rng, session, state):
    """One visit, or several of one stream; adds to the state."""
    from serving import HEADER

    seal, tick = None, 0
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        async with session.ws_connect(f"http://127.0.0.1:{program.port}/v1/stream", max_msg_size=0) as web:
            await web.send_json(
                {"type": "hello", "token": program.token, "resume": seal, "posteriors": rng.random() < 0.5}
            )
            message = await web.receive()
            if message.type != aiohttp.WSMsgType.TEXT:  # the server has enough to do
                state["refused"] += 1
                await asyncio.sleep(1)
                return
            welcome = json.loads(message.data)
            tick, seal, ack = welcome["from"], welcome["seal"], welcome["from"]
            state["visits"] += 1
            end, way = tick + rng.randrange(16_000, 960_000), rng.choice(["end", "vanish", "stall", "back"])
            while tick < end:
                at = tick % len(SOUND)
                data = SOUND[at : at + BLOCK]
                await web.send_bytes(HEADER.pack(1, 0, 0, len(data), tick) + data.tobytes())
                tick, state["ticks"] = tick + len(data), state["ticks"] + len(data)
                while tick - ack > 16_000:
                    row = json.loads((await web.receive()).data)
                    ack, seal = row.get("ack", ack), row.get("seal", seal)
            if way == "end":
                await web.send_json({"type": "end"})
                async for _ in web:
                    pass
                return
            if way == "stall":
                await asyncio.sleep(rng.random() * 10)
            if way != "back":
                web._response.connection.transport.abort()
                return


async def day(program, hours):
    rng, state, rows, began = random.Random(0), {"ticks": 0, "visits": 0, "refused": 0}, [], time.monotonic()
    wanted = hours * 3600 * 16_000

    async def visitor(session):
        while state["ticks"] < wanted:
            await visit(program, rng, session, state)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        visitors = [asyncio.create_task(visitor(session)) for _ in range(40)]
        for part in range(13):
            while state["ticks"] < wanted * part / 12 and not all(one.done() for one in visitors):
                await asyncio.sleep(0.2)
            heard = state["ticks"] / 3600 / 16_000
            rows.append([f"{heard:.2f}", state["visits"], state["refused"], f"{program.resident() / 1e6:.1f}", f"{program.cpu():.0f}", f"{time.monotonic() - began:.0f}"])  # fmt: skip
            print(rows[-1], flush=True)
        await asyncio.gather(*visitors)
    await asyncio.sleep(5)
    told = (program.folder / "told").read_text().splitlines()[1:]
    report(
        "serving_day",
        ["hours of sound", "visits", "refused", "MB of the server", "CPU seconds", "seconds passed"],
        rows,
        f"40 clients come, stall, vanish, come back; printed by the server meanwhile: {told or 'nothing'}",
    )


def main(what, *numbers):
    if what == "abusers":
        abusers(*numbers)
    with tempfile.TemporaryDirectory() as folder:
        program = Program(folder)
        try:
            if what == "load":
                seconds = float(numbers[numbers.index("--seconds") + 1]) if "--seconds" in numbers else 20.0
                counts = [int(one) for one in numbers[: numbers.index("--seconds") if "--seconds" in numbers else None]]
                load(program, counts or [100, 300, 500], seconds)
            elif what == "kill":
                asyncio.run(kill(program, int(numbers[0]) if numbers else 5))
            elif what == "abuse":
                abuse(program)
            elif what == "idle":
                idle(program, int(numbers[0]) if numbers else 500)
            else:
                asyncio.run(day(program, float(numbers[0]) if numbers else 24.0))
        finally:
            program.process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
