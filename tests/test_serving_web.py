"""The server as a program, over real sockets: bits, kills, drains, strangers, files, events."""

import asyncio
import io
import json
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import soundfile
from conftest import ROOT, certificate, noise, read_jsonl, refused, run, small_model
from serving import SOUND, Told, frame, mutated, offline, served, sound_frames, visiting

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.model.file import Promise
from pipeline.model.open import open_model
from pipeline.serving import messages
from pipeline.serving.browser import Browser
from pipeline.serving.web import Server
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.sink import Sink

LIVELY = ["decoder.threshold=0.55", "decoder.release=0.5", "decoder.minimum=0"]
PITCH = np.repeat([230.0, 2300.0, 260.0, 2500.0, 280.0, 2800.0], 16000)  # a second of each
WAVE = (9000 * np.sin(2 * np.pi * np.cumsum(PITCH) / 16000) + 3000 * noise(96_000, 3)).astype(np.int16)
CLOSED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


@pytest.fixture(scope="module")
def server(trained):
    with served(trained, *LIVELY, "source.per_address=200", "sink=[jsonl]", "sink.jsonl.path=told.jsonl") as found:
        yield found


@pytest.fixture(scope="module")
def known(trained):
    """Posteriors and events of WAVE, by a Scheduler in this process."""
    model = open_model(str(trained))[0]
    settings = {"threshold": 0.55, "release": 0.5, "minimum": 0.0}
    model.config["decoder"] |= settings
    return offline(model, WAVE, round(0.1 * model.rate / model.hop))


async def converse(server, told, stop=6 * 16000, end=False, **hello):
    """WAVE's frames of a stretch to the server, or what it asks for from there, until all is answered; the close code."""
    async with visiting(server, hello | told.known()) as (web, welcome):
        told.welcome, told.seal = welcome, welcome["seal"]
        begin = welcome["from"]
        for one in sound_frames(WAVE[begin:stop], 1000, begin):
            await web.send_bytes(one)
        if end:
            await web.send_json({"type": "end"})
            return await told.until(web, len(welcome["labels"]), lambda _: False)
        full = stop - stop % welcome["block"]
        return await told.until(web, len(welcome["labels"]), lambda told: told.ack >= full)


def places(rows):
    return sorted((row["label"], row["start"]) for row in rows)


def assert_known(told, known):
    posteriors, events = known
    assert np.array_equal(told.posteriors(), posteriors)
    assert sorted(told.events) == sorted((event.label, event.start) for event in events) and events


# ---------------------------------------------------------------- bits
def test_bits_are_those_of_a_scheduler_offline_and_torch_is_not_needed(server, known):
    async def three():
        each = [Told() for _ in range(3)]
        codes = await asyncio.gather(*(converse(server, told, end=True) for told in each))
        return each, codes

    each, codes = asyncio.run(three())
    assert codes == [1000] * 3
    for told in each:
        assert_known(told, known)
    maps = Path(f"/proc/{server.process.pid}/maps")
    assert not maps.exists() or "torch" not in maps.read_text()
    rows = read_jsonl(server.home / "told.jsonl")
    for told in each:
        own = [row for row in rows if row["type"] == "event" and told.welcome["session"] in row["stream"]]
        assert places(own) == told.places()


def test_another_server_with_the_same_key_goes_on_and_one_without_it_does_not(server, trained, known, tmp_path):
    told, key = Told(), f"source.key={tmp_path / 'shared'}"
    with served(trained, *LIVELY, key) as one, served(trained, *LIVELY, key) as two:
        assert one.token == two.token != server.token
        asyncio.run(converse(one, told, stop=40_000))
        one.kill()
        foreign = Told()
        foreign.seal = told.seal
        asyncio.run(converse(server, foreign, stop=1))
        assert not foreign.welcome["resumed"] and "not of this server" in foreign.welcome["why"]
        assert asyncio.run(converse(two, told, end=True)) == 1000 and told.welcome["resumed"]
    assert_known(told, known)


def test_sigterm_sends_a_last_seal_and_4503_and_another_model_is_told(trained, exported, known):
    told = Told()
    with served(trained, *LIVELY) as server:

        async def drained():
            async with visiting(server) as (web, welcome):
                for one in sound_frames(WAVE[:30_300], 1000):
                    await web.send_bytes(one)
                await told.until(web, len(welcome["labels"]), lambda told: told.ack > 16_000)
                server.process.send_signal(signal.SIGTERM)
                return await told.until(web, len(welcome["labels"]), lambda _: False)

        assert asyncio.run(drained()) == messages.STOPPING
        assert server.process.wait(10) == 143 and "Traceback" not in server.errors
        assert told.tick == 30_300  # all that was sent is in the seal
        server.again()
        assert asyncio.run(converse(server, told, end=True)) == 1000
        assert_known(told, known)
        server.kill()
        server.model = [f"checkpoint={exported}"]
        server.overrides = []
        server.again()
        asyncio.run(converse(server, told, stop=1, tick=96_000))
        assert "of the model" in told.welcome["why"] and told.welcome["from"] == 96_000
        assert told.welcome["labels"] == ["background", "high", "low"]


@pytest.mark.long
def test_the_client_sends_a_recording_and_goes_on_when_the_server_was_killed(trained, known, tmp_path):
    path = tmp_path / "wave.wav"
    soundfile.write(path, WAVE, 16000)
    with served(trained, *LIVELY) as server:
        command = [sys.executable, "-m", "pipeline.serving.client", server.url]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
        sending = subprocess.Popen([*command, str(path), "porch"], **pipes)
        first = sending.stdout.readline()
        server.kill()
        server.again()
        rest, errors = sending.communicate(timeout=120)
        assert sending.returncode == 0, errors
        found = [(row["label"], row["start"]) for row in map(json.loads, [first, *rest.splitlines()])]
        assert found == [(event.label, event.start) for event in known[1]]
        for address, file, said in (
            (server.url, "nowhere.wav", b"error: not_found"),
            (f"{server.origin}/#x", path, b"4401"),
        ):
            done = subprocess.run([*command[:-1], address, file], timeout=120, **pipes)
            assert done.returncode == 1 and said in done.stderr


def test_a_port_that_is_taken_is_told_and_no_thread_is_left(tmp_path, capsys):
    model = small_model()
    model.promise = Promise(wish=1, sound="negatives", hours=2, alarms=0, below=1.5, recall=None, events=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        browser = Browser(port=taken.getsockname()[1], key=str(tmp_path / "key"))
        server = Server(
            browser, Fanout({"none": Sink()}), lambda checkpoint, live: (model, {}, tmp_path / checkpoint), 0.1
        )
        with pytest.raises(ConfigError, match=r"source\.port: 127\.0\.0\.1:.* choose another"):
            asyncio.run(server.serve("run"))
    assert not {"hall", "darkroom"} & {thread.name for thread in threading.enumerate()}
    assert capsys.readouterr().err == f"false alarms: {model.promise}\n"


# ---------------------------------------------------------------- what is asked
def fetch(server, path, method="GET", **options):
    async def ask():
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, server.origin + path, **options) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    return asyncio.run(ask())


def test_files_are_classified_as_infer_does(server, trained, tones, tmp_path):
    path = tones / "low" / "3.wav"
    for output, key in [("labels", "label"), ("events", "events")]:
        run("infer.py", f"checkpoint={trained}", "source=files", f"source.paths={path}", f"output={output}", *LIVELY, "sink=jsonl", f"sink.jsonl.path={tmp_path / output}")  # fmt: skip
        (wanted,) = read_jsonl(tmp_path / output)
        status, _, body = fetch(
            server, f"/v1/classify?output={output}", "POST", data=path.read_bytes(), headers=server.bearer
        )
        found = json.loads(body)
        assert status == 200 and found[key] == wanted[key] and found["posteriors"] == wanted["posteriors"]
    status, _, body = fetch(server, "/v1/classify", "POST", data=b"RIFF" + bytes(100), headers=server.bearer)
    assert status == 200 and json.loads(body)["status"] == "error" and "/tmp" not in body.decode()
    assert fetch(server, "/v1/classify?output=x", "POST", data=b"", headers=server.bearer)[0] == 400
    assert fetch(server, "/v1/classify", "POST", data=io.BytesIO(bytes(65 << 20)), headers=server.bearer)[0] == 413


def test_events_are_told_to_who_watches_and_figures_to_prometheus(server):
    async def watch():
        address = f"{server.origin}/v1/events"
        async with aiohttp.ClientSession() as session, session.get(address, headers=server.bearer) as watching:
            told = Told()
            await converse(server, told, end=True, name="porch")
            rows = []
            async with asyncio.timeout(10):
                while len(rows) < len(told.events):
                    line = await watching.content.readline()
                    if line.startswith(b"data: "):
                        rows.append(json.loads(line[6:]))
        return told, rows

    told, rows = asyncio.run(watch())
    assert places(rows) == told.places()
    assert {(row["stream"], row["type"]) for row in rows} == {(f"porch {told.welcome['session']}", "event")}
    text = fetch(server, "/metrics", headers=server.bearer)[2].decode()
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures["rivulet_input_seconds_total"]) >= 6 and float(figures["rivulet_events_total"]) >= len(rows)
    buckets = [float(value) for name, value in figures.items() if name.startswith("rivulet_answer_seconds_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == float(figures["rivulet_answer_seconds_count"]) > 0


def test_each_path_has_its_headers_and_the_token_where_it_must(server):
    described = json.loads((ROOT / "pipeline" / "serving" / "openapi.json").read_text())["paths"]
    for path, methods in described.items():
        method, facts = next(iter(methods.items()))
        if path == "/v1/stream":
            continue
        status, headers, _ = fetch(server, path, method.upper(), data=b"" if method == "post" else None)
        assert (status == 401) == ("security" not in facts), path
        assert status in (200, 401) and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and "aiohttp" not in headers["Server"]
        for wrong in ("", "Bearer", "Bearer x", "Bearer ä", f"Basic {server.token}"):
            if status == 401:
                assert fetch(server, path, method.upper(), headers={"Authorization": wrong})[0] == 401
    status, headers, _ = fetch(server, "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and "unsafe-inline" not in str(headers)
    model = json.loads(fetch(server, "/v1/model", headers=server.bearer)[2])
    assert model["labels"] == ["high", "low"] and model["sound"] == 16000
    below = ["../infer.py", "%2e%2e/web.py", "page/index.html", "web.py", "index.html/", "/etc/passwd", "teach.py"]
    for path in [f"/{name}" for name in below]:
        assert fetch(server, path)[0] == 404


# ---------------------------------------------------------------- strangers
@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example:8765"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Host": "localhost:1", "Origin": "http://127.0.0.1:1"},
])  # fmt: skip
def test_other_hosts_and_origins_are_turned_away(server, headers):
    assert fetch(server, "/v1/model", headers=server.bearer | headers)[0] == 403
    assert fetch(server, "/", headers=headers)[0] == 403

    async def connect():
        async with visiting(server, headers=headers):
            pass

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        asyncio.run(connect())
    assert caught.value.status == 403
    ours = {"Origin": server.origin.replace("127.0.0.1", "localhost"), "Host": f"localhost:{server.port}"}
    assert fetch(server, "/v1/model", headers=server.bearer | ours)[0] == 200


def close_code(server, *sent, wait=10):
    """The code with which a connection ends after messages."""

    async def talk():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.origin}/v1/stream", max_msg_size=0) as web,
        ):
            for one in sent:
                await (web.send_str(one) if isinstance(one, str) else web.send_bytes(one))
            async with asyncio.timeout(wait):
                while (await web.receive()).type not in CLOSED:
                    pass
            return web.close_code

    return asyncio.run(talk())


def test_every_way_to_misbehave_has_its_code(server):
    hello = json.dumps({"type": "hello", "token": server.token})
    assert close_code(server, json.dumps({"type": "hello", "token": "x"})) == messages.TOKEN
    for sent in (["x"], [b"x"], [frame(SOUND, 0, 1, bytes(2))], [hello, hello]):
        assert close_code(server, *sent) == messages.MALFORMED
    assert close_code(server, hello.replace("}", ', "resume": "%s"}' % ("A" * 2_000_000))) == 1009
    assert close_code(server, bytes(2_000_000)) == 1009
    begin = time.monotonic()
    assert close_code(server) == messages.LATE and 4 < time.monotonic() - begin < 9


def test_headers_that_do_not_come_end_the_connection(server):
    began, text = time.monotonic(), iter(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(0.2)
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 20:
                with suppress(TimeoutError):
                    slow.send(bytes([next(text)]))
                    if not slow.recv(10):
                        raise ConnectionError
    assert time.monotonic() - began < 12


@contextmanager
def raw(server, *sent):
    """A WebSocket without a library, which reads nothing."""
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        line.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
        )
        for opcode, data in sent:
            line.sendall(packed(opcode, data))
        yield line


def packed(opcode, data):
    """A masked frame of RFC 6455, the mask being 0."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data)) if len(data) < 65536 else b"\xff" + struct.pack(">Q", len(data))  # fmt: skip
    return bytes([0x80 | opcode]) + size + bytes(4) + data


@pytest.mark.long
def test_deflate_is_not_taken_and_who_reads_nothing_is_cut_off(server):
    hello, began = json.dumps({"type": "hello", "token": server.token}).encode(), time.monotonic()
    with raw(server, (1, hello)) as line:
        assert b"permessage-deflate" not in line.recv(400).split(b"\r\n\r\n")[0]
        line.settimeout(60)
        with pytest.raises(ConnectionError):  # hundreds of seconds of sound, whose answers wait
            for one in sound_frames(np.zeros(600 * 16000, np.int16), 1600):
                line.sendall(packed(2, one))
    assert time.monotonic() - began > 10


def test_whoever_is_taken_over_while_sending_hears_why(server):
    async def pressed():
        async with AsyncExitStack() as stack:
            told, before, codes = Told(), None, []
            for _ in range(40):
                web, welcome = await stack.enter_async_context(visiting(server, told.known()))
                told.seal = welcome["seal"]
                if before:
                    codes.append(await told.until(before, 3, lambda _: False))
                for _ in range(20):
                    await web.send_json({"type": "ping", "time": 0})
                before = web
            return codes

    assert asyncio.run(pressed()) == [messages.TAKEN_OVER] * 39


@pytest.mark.long
def test_1000_mutated_handshakes_harm_neither_the_server_nor_a_neighbours_bits(server, known):
    rng, met = random.Random(7), Counter()
    upgrade = (
        f"GET /v1/stream HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    hello = packed(1, json.dumps({"type": "hello", "token": server.token}).encode())
    frames = b"".join(packed(2, one) for one in sound_frames(WAVE[:4000], 1000))

    async def stranger():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        part = rng.randrange(3)
        sent = [mutated(rng, one) if number == part else one for number, one in enumerate([upgrade, hello, frames])]
        with suppress(ConnectionError, TimeoutError):
            writer.write(b"".join(sent))
            async with asyncio.timeout(3):
                answer = await reader.read(1 << 16)
                met[answer[9:12]] += 1
                while await reader.read(1 << 16):
                    pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def all_of_them():
        told, gate = Told(), asyncio.Semaphore(30)

        async def one():
            async with gate:
                await stranger()

        code, *_ = await asyncio.gather(converse(server, told, end=True), *(one() for _ in range(1000)))
        return told, code

    told, code = asyncio.run(all_of_them())
    assert code == 1000 and met[b"101"] > 300 and met[b"400"] > 20
    assert_known(told, known)
    assert fetch(server, "/healthz")[0] == 200 and "Traceback" not in server.errors


def test_too_many_of_an_address_or_of_all_are_sent_away(trained):
    with served(trained, "source.per_address=3", "source.clients=5") as server:

        async def crowd():
            async with AsyncExitStack() as stack:
                for _ in range(3):
                    await stack.enter_async_context(visiting(server))
                async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.origin}/v1/stream") as web:
                    message = await web.receive(timeout=5)
                    assert message.type == aiohttp.WSMsgType.CLOSE and web.close_code == messages.BUSY
            await asyncio.sleep(0.2)
            async with visiting(server) as (_, welcome):
                assert welcome["type"] == "welcome"

        asyncio.run(crowd())


def test_https_with_a_certificate_and_nobody_else_without(trained, tmp_path):
    both = certificate(tmp_path / "both.pem", "IP:127.0.0.1")
    with served(trained, f"source.certificate={both}") as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(both))
        assert fetch(server, "/v1/model", headers=server.bearer, ssl=trusting)[0] == 200
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.settimeout(12)
            assert line.recv(10) == b""  # no handshake


@pytest.mark.parametrize(("settings", "said"), [
    ({"address": "0.0.0.0"}, "source.certificate"), ({"address": "localhost"}, "127.0.0.1"),
    ({"certificate": "/nowhere.pem"}, "source.certificate"), ({"port": 70000}, "source.port"),
    ({"clients": 0}, "source.clients"),
])  # fmt: skip
def test_settings_that_would_let_strangers_in_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        build({"_target_": "pipeline.serving.browser.Browser"} | settings, Browser, at="source")


def test_sinks_of_one_stream_are_refused(trained, tmp_path):
    place = [f"source.key={tmp_path / 'k'}", "sink=csv", f"sink.csv.path={tmp_path / 'x'}"]
    refused("csv takes one stream", "infer.py", f"checkpoint={trained}", "source=browser", *place)


def test_a_sink_never_writes_over_the_model(trained, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes((trained / "model.onnx").read_bytes())
    place = [f"source.key={tmp_path / 'k'}", "source.port=0", "sink=jsonl", f"sink.jsonl.path={model}"]
    refused("is a file that is read", "infer.py", f"checkpoint={model}", "source=browser", *place)
    assert model.read_bytes() == (trained / "model.onnx").read_bytes()
