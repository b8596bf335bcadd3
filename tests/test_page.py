"""The exported page in headless Chromium: it shows what the program without a browser tells of the same sound."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import small_model, static_server

from pipeline.core.errors import ConfigError
from pipeline.exporting import browser, rivulet_runtime
from pipeline.exporting.graph import to_graph
from pipeline.exporting.package import write_package

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FAKE = "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required"  # fmt: skip


def write(folder):
    """A page whose model hears much."""
    settings = "decoder.threshold=0.5", "decoder.release=0.45", "decoder.minimum=0.03", "decoder.merge=0.02"
    model = small_model(*settings, "head=max", "head.window=0.05", "head.delay=0.04")
    (folder / "model.onnx").write_bytes(to_graph(model, 960, None))
    write_package(folder)
    browser.write_page(folder)


def told(folder, pieces):
    stream = rivulet_runtime.Stream(folder / "model.onnx")
    events = [event for piece in pieces for event in stream.push(piece)] + stream.close()
    times = [f"{one['label']}, {one['start']:.2f} to {one['end']:.2f} s" for one in events]
    return [(time, pytest.approx(one["score"], abs=0.006)) for time, one in zip(times, events)]


def shown(page):
    rows = [text.rpartition(", ") for text in page.locator("#events li").all_text_contents()[::-1]]
    return [(times, float(score)) for times, _, score in rows]


def pulses(seconds=4):
    t = np.arange(16000 * seconds) / 16000
    return 0.3 * np.sin(2 * np.pi * 5000 * t) * (np.sin(2 * np.pi * 1.5 * t) > 0)


@pytest.mark.long
def test_the_page_shows_the_events_that_python_finds(tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    try:
        write(tmp_path)
    except ConfigError as error:
        pytest.skip(str(error))
    soundfile.write(tmp_path / "a.wav", np.concatenate([pulses(), np.zeros(16000 * 20)]), 16000, "PCM_16")
    soundfile.write(tmp_path / "b.wav", pulses(), 16000, "PCM_16")
    problems, options = [], [*FAKE, f"--use-file-for-fake-audio-capture={tmp_path / 'a.wav'}%noloop"]
    with (
        static_server(tmp_path / "browser") as origin,
        api.sync_playwright() as play,
        play.chromium.launch(executable_path=CHROMIUM, args=options) as chrome,
    ):
        page = chrome.new_page()
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.add_init_script(
            "window.heard = []; document.addEventListener('samples', ({detail}) => heard.push([...detail]))"
        )
        page.goto(f"{origin}/index.html")
        page.get_by_text("Ready.").wait_for(timeout=60_000)
        page.set_input_files("#file", str(tmp_path / "b.wav"))
        page.get_by_text("is over.").wait_for(timeout=60_000)
        wave = soundfile.read(tmp_path / "b.wav", dtype="float32")[0]
        assert len(told(tmp_path, [wave])) > 3 and shown(page) == told(tmp_path, [wave])
        page.evaluate("heard.length = 0; document.getElementById('events').replaceChildren()")
        page.click("#listen")
        page.wait_for_timeout(5000)
        page.click("#listen")
        page.get_by_text("Ready.").wait_for(timeout=60_000)
        pieces = [np.array(piece, np.float32) for piece in page.evaluate("heard")]
        assert sum(map(len, pieces)) > 3 * 16000 and np.abs(np.concatenate(pieces)).max() > 0.1
        assert len(told(tmp_path, pieces)) > 3 and shown(page) == told(tmp_path, pieces)
    assert not [text for text in problems if "favicon" not in text]


def test_without_onnxruntime_web_it_says_what_is_missing(exported, tmp_path):
    shutil.copy(exported / "model.onnx", tmp_path)
    write_package(tmp_path)
    with pytest.raises(ConfigError, match="give a node_modules folder with onnxruntime-web"):
        browser.write_page(tmp_path, Path("nowhere"))


def test_the_page_may_fetch_nothing_from_elsewhere():
    text = (browser.PAGE / "index.html").read_text()
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
    assert not [path for path in browser.PAGE.glob("*.js") if "://" in path.read_text().replace("http://localhost", "")]
