"""The live page in headless Chromium, with fake devices and a real server: what it shows is what the model says."""

import base64
import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import soxr
from conftest import BOTH, PICTURES, QUICK, ROOT, lively_model, read_jsonl, small_model, static_server
from serving import GAP, HEADER, PICTURE, SOUND, served

from pipeline.exporting.graph import to_graph
from pipeline.model.open import open_model
from pipeline.model.stream_model import block_ticks
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make test-browser installs it"),
]
RATE = 16000
FAKE = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
PLAYED = [(2.0, "low"), (4.0, "high"), (6.0, "low"), (8.0, "high"), (10.0, "low"), (12.0, "high")]
# The page tells by events what it has sent and what it shows; a test keeps both.
KEEP = """
window.sent = []; window.steps = []; window.shown = [];
document.addEventListener("sent", ({detail}) => sent.push(btoa(String.fromCharCode(...detail))));
document.addEventListener("steps", ({detail}) => {
  steps.push([detail.first, [...detail.rows]]);
  shown.push([...document.querySelectorAll("#bars li")].map(({dataset}) => [dataset.label, Number(dataset.score)]));
});
"""


@pytest.fixture(scope="session")
def run(tones, learn, tmp_path_factory):
    """A model that knows low and high tones and noise, trained by the command line."""
    clips, rng = shutil.copytree(tones, tmp_path_factory.mktemp("page") / "clips"), np.random.default_rng(0)
    (clips / "background").mkdir()
    for number in range(12):
        wave = 0.003 * (1 + number) * rng.standard_normal(9600)
        soundfile.write(clips / "background" / f"{number}.wav", wave, RATE)
    more = ["trainer.epochs=40", "trainer.label_smoothing=0", "export=true", "hydra.run.dir=OUT"]
    return learn("page", "dataset=folder", f"dataset.root={clips}", "dataset.cache=null", *QUICK, *more)[0]


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """A recording for a fake microphone: tones of a second, and then quiet."""
    wave = 0.03 * np.random.default_rng(1).standard_normal(RATE * 90)
    t = np.arange(RATE) / RATE
    for start, label in PLAYED:
        wave[int(start * RATE) :][:RATE] += 0.3 * np.sin(2 * np.pi * {"low": 250, "high": 2400}[label] * t)
    path = tmp_path_factory.mktemp("scene") / "scene.wav"
    soundfile.write(path, wave, RATE, "PCM_16")
    return path


@contextlib.contextmanager
def browser(*flags):
    with playwright.sync_playwright() as play:
        plain = "--no-sandbox", "--autoplay-policy=no-user-gesture-required"
        chrome = play.chromium.launch(executable_path=CHROMIUM, args=[*plain, *flags])
        yield chrome
        chrome.close()


def hearing(scene):
    """Flags of a browser whose microphone plays a recording once."""
    return *FAKE, f"--use-file-for-fake-audio-capture={scene}%noloop"


STILL = "window.requestAnimationFrame = () => 0;"


class Visit:
    """A page, what it sent and showed, and what its console said against it. Canvases stand still, which spares the
    processor: without a graphics card they cost most of its time.
    """

    def __init__(self, chrome, url, script=STILL, **options):
        self.problems = []
        self.page = chrome.new_page(reduced_motion="reduce", **options)
        self.page.on("console", lambda said: said.type == "error" and self.problems.append(said.text))
        self.page.on("pageerror", lambda error: self.problems.append(f"{error.name}: {error}"))
        self.page.add_init_script(KEEP + script)
        self.page.goto(url)

    def start(self):
        self.page.locator("#start:enabled").click()
        self.wait("Live")

    def wait(self, text, place="#link", seconds=120):
        self.page.locator(place).filter(has_text=text).first.wait_for(timeout=1000 * seconds)

    def stop(self):
        self.page.click("#start")
        self.wait("Stopped")

    def until_answered(self, seconds):
        self.page.wait_for_function(
            "ticks => Number(document.querySelector('#start').dataset.tick) >= ticks",
            arg=seconds * RATE,
            polling=100,
            timeout=300_000,
        )

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    @property
    def notice(self):
        return self.page.locator("#notice").inner_text()

    def events(self):
        """Label and start of the events in the list, the oldest first."""
        rows = [text.split("\n") for text in self.texts("#events li:not(.gap)")[::-1]]
        return [(row[1], minutes(row[0])) for row in rows]

    def sent(self):
        """The frames, each once: {kind: {tick: (length, payload)}}."""
        found = {SOUND: {}, PICTURE: {}, GAP: {}}
        for text in self.page.evaluate("sent"):
            data = base64.b64decode(text)
            kind, _, _, length, tick = HEADER.unpack_from(data)
            payload = data[HEADER.size :]
            assert found[kind].setdefault(tick, (length, payload)) == (length, payload)
        return found

    def posteriors(self, labels):
        """All steps (K,) that the page was told; the last of each answer was shown, bit for bit."""
        found = {}
        for (first, flat), bars in zip(self.page.evaluate("steps"), self.page.evaluate("shown"), strict=True):
            rows = np.array(flat, np.float32).reshape(-1, len(labels)).tolist()
            assert not found.keys() & {*range(first, first + len(rows))}
            found |= dict(enumerate(rows, first))
            assert not rows or bars == [list(pair) for pair in zip(labels, rows[-1], strict=True)]
        return found

    def check(self, run):
        """Posteriors and events are those of a Scheduler that is given what was sent, each tick once; its events."""
        model, _ = open_model(str(run))
        scheduler, stream = scheduled(model)
        answers, sent = [], self.sent()
        frames = sorted([(tick, kind, *sent[kind][tick]) for kind in (SOUND, GAP) for tick in sent[kind]])
        assert [tick for tick, *_ in frames] == [0, *(tick + length for tick, _, length, _ in frames[:-1])]
        for _, kind, length, payload in frames:
            if kind == SOUND:
                scheduler.feed(stream, np.frombuffer(payload, "<i2").astype(np.float32) / 32768)
            else:
                answers += scheduler.gap(stream, length, "keep" if payload == b"behind" else "reset")
        answers += scheduler.close(stream)
        steps = [pair for answer in answers for pair in enumerate(answer.posteriors.tolist(), answer.first)]
        assert self.posteriors(model.labels) == dict(steps)
        events = [event for answer in answers for event in answer.events]
        assert self.events() == [(event.label, pytest.approx(event.start / RATE, abs=0.051)) for event in events]
        return events


def scheduled(model):
    """A Scheduler as the server has it, and a stream in it."""
    steps = block_ticks(model, 0.1) // model.hop
    scheduler, stream = Scheduler(model, steps), Stream(model, steps)
    scheduler.join(stream)
    return scheduler, stream


def minutes(text):
    whole, seconds = text.split(":")
    return 60 * int(whole) + float(seconds)


def told(path):
    """The events in a file of JSON lines, as (label, start)."""
    return [(row["label"], row["start"]) for row in read_jsonl(path) if row["type"] == "event"]


def in_order(events):
    """The labels of events, repetitions once."""
    return [label for k, (label, _) in enumerate(events) if k == 0 or events[k - 1][0] != label]


class Proxy:
    """Stands between the page and the server, and can cut them off (``refuse``) or let both wait in vain (``hold``)."""

    def __init__(self, port):
        self.port, self.mode, self.pairs = port, "pass", []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.mode == "refuse":
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.port))
                self.pairs += [client, server]
                for a, b in ((client, server), (server, client)):
                    threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                while self.mode == "hold":
                    time.sleep(0.02)
                b.sendall(data)
        for each in (a, b):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        a.close()

    def cut(self):
        self.mode = "refuse"
        for each in self.pairs:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxied(run):
    """A server, and a proxy before it."""
    with served(run) as server:
        proxy = Proxy(server.port)
        yield server, proxy, f"{proxy.url}/#{server.token}"
        proxy.mode = "pass"
        proxy.cut()
        proxy.listener.close()


@pytest.fixture
def heard(scene):
    """A browser whose microphone plays the scene."""
    with browser(*hearing(scene)) as chrome:
        yield chrome


def test_tones_are_named_in_order_and_the_bits_are_those_of_the_program(run, heard, tmp_path):
    with served(run, "sink=jsonl", f"sink.jsonl.path={tmp_path / 'events.jsonl'}") as server:
        visit = Visit(heard, server.url)
        visit.start()
        visit.wait("high", "#now")
        visit.until_answered(9.5)
        visit.stop()
        events = visit.check(run)
        assert in_order(visit.events())[:4] == ["low", "high", "low", "high"]
        assert told(tmp_path / "events.jsonl") == [(event.label, round(event.start / RATE, 3)) for event in events]
        for kind in ("jsonl", "txt", "vtt"):
            with visit.page.expect_download() as download:
                visit.page.click(f"[data-format={kind}]")
            text = Path(download.value.path()).read_text()
            assert text.count("low") == sum(event.label == "low" for event in events)
    assert not visit.problems


def test_after_kill_9_it_goes_on_bit_for_bit_and_tells_no_event_twice(run, heard, tmp_path):
    with served(run, "sink=jsonl", f"sink.jsonl.path={tmp_path / 'events.jsonl'}") as server:
        visit = Visit(heard, server.url)
        visit.start()
        visit.until_answered(4.5)  # in the middle of a tone
        server.kill()
        visit.wait("connection to the server is lost", "#notice")
        before = told(tmp_path / "events.jsonl")
        server.overrides[-1] = f"sink.jsonl.path={tmp_path / 'later.jsonl'}"
        server.again()
        visit.wait("Live")
        visit.until_answered(9.5)
        visit.stop()
        events = visit.check(run)
        assert in_order(visit.events())[:4] == ["low", "high", "low", "high"]
        assert any("nothing lost" in text for text in visit.texts("#events .gap"))
        told_of = before + told(tmp_path / "later.jsonl")
        assert told_of == [(event.label, round(event.start / RATE, 3)) for event in events]
    assert not [text for text in visit.problems if "ERR_CONNECTION_REFUSED" not in text]


@pytest.mark.parametrize("mode", ["refuse", "hold"])
def test_a_connection_that_is_cut_or_only_silent_is_made_again_and_nothing_is_lost(run, heard, proxied, mode):
    _, proxy, url = proxied
    visit = Visit(heard, url)
    visit.page.evaluate("async () => { (await import('./link.js')).LIMITS.silence = 1500 }")
    visit.start()
    visit.until_answered(2.5)
    proxy.mode = mode
    if mode == "refuse":
        proxy.cut()
    visit.wait("connection to the server is lost", "#notice")
    visit.until_answered(5)
    proxy.mode = "pass"
    visit.wait("Live")
    visit.until_answered(7)
    visit.stop()
    visit.check(run)
    assert in_order(visit.events())[:2] == ["low", "high"] and "nothing lost" in visit.texts("#events .gap")[-1]


@pytest.mark.parametrize(
    ("seconds", "away"), [(2, 4), pytest.param(60, 90, marks=pytest.mark.long)], ids=["short", "as_it_is"]
)
def test_a_connection_that_is_away_for_too_long_is_a_gap_of_that_length(heard, proxied, seconds, away):
    _, proxy, url = proxied
    visit = Visit(heard, url)
    visit.page.evaluate("async most => { (await import('./link.js')).LIMITS.seconds = most }", seconds)
    visit.start()
    visit.until_answered(2.5)
    proxy.cut()
    visit.until_answered(2.5 + away)
    proxy.mode = "pass"
    visit.wait("Live")
    visit.until_answered(4 + away)
    visit.stop()
    long = b"the connection was away for too long"
    [length] = [many for many, why in visit.sent()[GAP].values() if why == long]
    least = away - seconds - 0.5  # it begins with the newest seal, 2 s old at most; the next try may be 5 s away
    assert least < length / RATE < least + 2 + 5 + 2
    told_of = [text for text in visit.texts("#events .gap") if "away for too long" in text]
    assert len(told_of) == 1 and f"{length / RATE:.1f} s missing" in told_of[0]


@pytest.mark.parametrize("seconds", [10, pytest.param(120, marks=pytest.mark.long)])
def test_a_slow_computer_makes_gaps_and_keeps_its_memory(run, heard, seconds):
    with served(run) as server:
        visit = Visit(heard, server.url)
        tools = visit.page.context.new_cdp_session(visit.page)
        tools.send("Emulation.setCPUThrottlingRate", {"rate": 6})
        visit.start()

        def heap():
            tools.send("HeapProfiler.collectGarbage")
            return tools.send("Runtime.getHeapUsage")["usedSize"]

        visit.page.evaluate(
            "sent.length = steps.length = shown.length = 0; window.sent.push = steps.push = shown.push = () => 0"
        )
        visit.page.wait_for_timeout(min(35_000, 500 * seconds))
        begun, before = time.monotonic(), heap()
        first = int(visit.page.locator("#start").get_attribute("data-tick"))
        visit.page.wait_for_timeout(1000 * seconds - min(35_000, 500 * seconds))
        passed = (int(visit.page.locator("#start").get_attribute("data-tick")) - first) / RATE
        assert passed == pytest.approx(time.monotonic() - begun, abs=2.0)  # what is lost is counted
        assert heap() - before < 3e6
        visit.stop()


def test_the_resampler_is_soxrs(heard):
    page = heard.new_page()
    with static_server(ROOT / "pipeline" / "serving" / "page") as origin:
        page.goto(f"{origin}/icon.svg")
        for low, high in ((44100, 16000), (48000, 16000), (48000, 22050), (16000, 22050)):
            seconds, top = 2, 0.45 * low
            t = np.arange(seconds * low) / low
            sweep = (0.5 * np.sin(2 * np.pi * (20 * t + (top - 20) / (2 * seconds) * t**2))).astype(np.float32)
            answer = page.evaluate(
                """async ({origin, low, high, text}) => {
                  const {Resampler} = await import(`${origin}/resample.js`), bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
                  const all = new Float32Array(bytes.buffer), one = new Resampler(low, high), found = [];
                  for (let at = 0, size = 1; at < all.length; at += size, size = size % 300 + 1) found.push(...one.push(all.subarray(at, at + size)));
                  return [one.half, found];
                }""",
                {"origin": origin, "low": low, "high": high, "text": base64.b64encode(sweep.tobytes()).decode()},
            )
            half, found = answer[0], np.array(answer[1])
            theirs = soxr.resample(np.concatenate([np.zeros(half, np.float32), sweep]), low, high, "VHQ")[: len(found)]
            window = high // 50
            count = len(found) // window
            errors = np.sqrt(np.mean((found - theirs)[: count * window].reshape(count, window) ** 2, axis=1))
            hertz = 20 + (top - 20) * (np.arange(count) + 0.5) * window / high / seconds
            share = hertz / (min(low, high) / 2)
            outside = (share < 0.88) | (share > 1.02)  # in between both let through a part
            assert len(found) == pytest.approx(seconds * high, abs=2)
            assert 20 * np.log10(errors[outside].max() / (0.5 / np.sqrt(2))) < -60


FIREFOX = """
const open = AudioContext.prototype.createMediaStreamSource;
AudioContext.prototype.createMediaStreamSource = function (stream) {
  if (this.sampleRate !== 44100) throw new DOMException("AudioContext.createMediaStreamSource: another rate", "NotSupportedError");
  window.rate = this.sampleRate;
  return open.call(this, stream);
};
window.AudioContext = class extends AudioContext { constructor(options) { super({sampleRate: 44100, ...options}); } };
"""


def test_where_the_context_takes_only_the_devices_rate_the_page_resamples_and_hears_the_same(run, heard):
    with served(run) as server:
        visit = Visit(heard, server.url, STILL + FIREFOX)
        visit.start()
        visit.until_answered(7.5)
        visit.stop()
        visit.check(run)
        assert visit.page.evaluate("rate") == 44100
        assert in_order(visit.events()) == ["low", "high", "low"]
    assert not visit.problems


def test_it_fits_wide_and_narrow_screens_in_light_and_dark(run, scene):
    with served(run) as server, browser(*hearing(scene)) as chrome:
        visit = Visit(chrome, server.url, script="")
        visit.start()
        visit.until_answered(5)
        for scheme, width, height in (("light", 1280, 800), ("dark", 1280, 800), ("light", 390, 844)):
            visit.page.set_viewport_size({"width": width, "height": height})
            visit.page.emulate_media(color_scheme=scheme)
            visit.page.wait_for_timeout(300)
            assert visit.page.evaluate("document.documentElement.scrollWidth") == width
            for canvas in ("spectrogram", "line"):
                inked = f"""() => {{
                  const canvas = document.getElementById("{canvas}"), pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                  return new Set(new Uint32Array(pixels.buffer)).size;
                }}"""
                assert visit.page.evaluate(inked) > 20
    assert not visit.problems


@pytest.fixture(scope="session")
def camera(tmp_path_factory):
    """A recording for a fake camera: a square that moves."""
    path = tmp_path_factory.mktemp("camera") / "square.y4m"
    with open(path, "wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F15:1 Ip A1:1 C420jpeg\n")
        for number in range(30):
            light = np.full((240, 320), 40, np.uint8)
            light[80:160, 10 * number : 10 * number + 80] = 220
            file.write(b"FRAME\n" + light.tobytes() + bytes([128]) * (2 * 120 * 160))
    return path


@pytest.mark.parametrize("tracks", [BOTH, PICTURES], ids=["both", "pictures"])
def test_what_a_camera_sees_is_answered_bit_for_bit(scene, camera, tmp_path, tracks):
    lively = lively_model(*tracks, "head.live=null")
    (tmp_path / "model.onnx").write_bytes(to_graph(lively, block_ticks(lively, 0.1), None))
    model, _ = open_model(str(tmp_path / "model.onnx"))
    flags = *hearing(scene), f"--use-file-for-fake-video-capture={camera}"
    with served(tmp_path / "model.onnx") as server, browser(*flags) as chrome:
        visit = Visit(chrome, server.url)
        visit.start()
        visit.page.wait_for_timeout(5000)
        visit.stop()
        posteriors = visit.posteriors(model.labels)
        frames = [base64.b64decode(text) for text in visit.page.evaluate("sent")]
    assert not visit.problems
    (scheduler, stream), answers = scheduled(model), []
    for chunk in seen(model, frames):
        if isinstance(chunk, int):
            answers += scheduler.gap(stream, chunk, "keep")
        else:
            scheduler.feed(stream, chunk)
    answers += scheduler.close(stream)
    steps = dict(pair for answer in answers for pair in enumerate(answer.posteriors.tolist(), answer.first))
    assert len(steps) > 3 * model.rate / model.hop and np.ptp(list(steps.values()), axis=0).max() > 0.01
    assert posteriors == steps


def seen(model, frames):
    """What frames hold, in the order in which they were sent, as the model takes it; gaps as numbers."""
    pictures, now, grain = [], None, model.grain
    for data in frames:
        kind, _, _, length, tick = HEADER.unpack_from(data)
        payload = data[HEADER.size :]
        if kind == GAP:
            assert payload == b"behind"
            yield length
        elif kind == PICTURE:
            image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (240, 320, 3)
            pictures.append((tick, model.spec.picture.fit(np.ascontiguousarray(image[:, :, ::-1]))))
            if not model.spec.sound:
                yield (np.stack([pictures[-1][1]] * length),)
        else:
            sound = np.frombuffer(payload, "<i2").astype(np.float32) / 32768
            assert length % grain == 0
            for start in range(0, length, grain):
                now = ([None, *(image for at, image in pictures if at <= tick + start)])[-1]
                black = np.zeros((model.spec.picture.height, model.spec.picture.width, 3), np.uint8)
                marks = np.array([[1, now is not None]], np.float32)
                yield sound[start : start + grain], (black if now is None else now)[None], marks


@pytest.mark.parametrize(("flags", "name", "token", "granted", "sentence"), [
    (FAKE[:1], "127.0.0.1", True, [], "The browser may not use the microphone"),
    ((), "127.0.0.1", True, ["microphone"], "There is no microphone"),
    ((), "rivulet.test", True, [], "-L {port}:localhost:{port} rivulet.test"),
    ((), "127.0.0.1", False, [], "This address lacks the server's token"),
], ids=["denied", "none", "insecure", "no_token"])  # fmt: skip
def test_who_may_not_use_the_microphone_or_has_none_is_told_so(run, flags, name, token, granted, sentence):
    mapped = "--host-resolver-rules=MAP rivulet.test 127.0.0.1"
    with served(run, "source.hosts=[rivulet.test]") as server, browser(*flags, mapped) as chrome:
        visit = Visit(chrome, f"http://{name}:{server.port}/" + f"#{server.token}" * token, permissions=granted)
        if token:
            visit.page.locator("#start:enabled").click()
        visit.wait(sentence.format(port=server.port), "#notice")
        assert visit.page.locator("#start").inner_text() == "Start"


def test_another_tab_takes_a_session_over_and_gives_it_back(run, heard):
    with served(run) as server:
        one = Visit(heard, server.url)
        one.start()
        one.page.wait_for_function("() => sessionStorage.getItem('stream')", polling=100)
        kept = one.page.evaluate("sessionStorage.getItem('stream')")
        two = Visit(heard, server.url, STILL + f"sessionStorage.setItem('stream', {json.dumps(kept)})")
        two.start()
        one.wait("Another tab took this session over", "#notice")
        two.wait("the page was loaded anew", "#events")
        one.page.click("#notice button")
        two.wait("Another tab took this session over", "#notice")
        one.wait("Live")
        assert not one.problems + two.problems


def test_a_page_of_another_origin_gets_no_stream(run):
    with served(run) as server, static_server(ROOT / "docs") as origin, browser() as chrome:
        page = chrome.new_page()
        page.goto(f"{origin}/memory_accuracy.png")
        ask = """([url, token]) => new Promise(done => {
          const socket = new WebSocket(url.replace("http", "ws") + "/v1/stream");
          socket.onopen = () => socket.send(JSON.stringify({type: "hello", token}));
          socket.onmessage = () => done("welcome");
          socket.onclose = ({code}) => done(code);
        })"""
        assert page.evaluate(ask, [server.origin, server.token]) == 1006
        page.goto(server.url)
        assert page.evaluate(ask, [server.origin, server.token]) == "welcome"
        assert page.evaluate(ask, [server.origin, ""]) == 4401


TRACKS = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (asked) => window.media = await open(asked);
"""


def test_each_mishap_is_one_sentence_on_the_page_and_the_stream_goes_on(run, heard):
    with served(run) as server:
        visit = Visit(heard, server.url, STILL + TRACKS)
        visit.start()
        visit.until_answered(2)
        visit.page.evaluate("media.getTracks()[0].stop(), media.getTracks()[0].dispatchEvent(new Event('ended'))")
        visit.wait("The microphone was unplugged: connect it again, or choose another one.", "#notice")
        visit.page.wait_for_timeout(1500)
        visit.page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
        visit.wait("missing: the microphone was unplugged", "#events")
        visit.page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true}), document.dispatchEvent(new Event('visibilitychange'))"
        )
        visit.wait("The tab was in the background; the sound went on.", "#notice")
        visit.page.evaluate("delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))")
        visit.page.evaluate("const now = Date.now; Date.now = () => now() + 3600e3")
        visit.wait("clock jumped by 3600 s", "#notice")
        before = len(visit.page.evaluate("steps"))
        visit.page.wait_for_function("before => steps.length > before + 3", arg=before, polling=100)
        visit.stop()
        assert not visit.problems


def test_a_model_that_was_replaced_under_a_running_page_is_told(run, heard, tmp_path):
    lively = small_model()
    lively.save(tmp_path / "model.safetensors")
    with served(run) as server:
        visit = Visit(heard, server.url)
        visit.start()
        visit.until_answered(2)
        server.kill(signal.SIGTERM)
        server.model = [f"checkpoint={tmp_path}"]
        server.again()
        visit.wait("The model was replaced: a new stream began.", "#notice")
        visit.wait("Live")
        visit.page.wait_for_function(
            "labels => JSON.stringify(shown.at(-1)?.map(row => row[0])) === JSON.stringify(labels)",
            arg=lively.labels,
            polling=100,
        )
        visit.stop()
