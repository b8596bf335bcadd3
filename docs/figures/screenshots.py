"""Pictures of the demonstration: the live page, the report, the console.

    make run && make test-browser        (the run, and what drives Chromium)
    python docs/figures/screenshots.py [page|report|console ...]

writes docs/*.webp and docs/console.svg. Everything is real: Chromium's fake microphone plays the scene of the run to the
page, at its own pace.
"""

import base64
import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipeline.model.open import open_model
from pipeline.sinks.console import Console, RichConsole, Terminal, Text
from pipeline.sinks.listen import listen
from pipeline.sources.file import File

RUN = ROOT / "runs" / "demo"
SCENE = RUN / "sounds" / "scene.wav"
SHOT = 14.0  # seconds of the scene at which the console is taken: within an event
WIDTH = 84  # columns of its terminal
FILM = 16.0, 27.0  # seconds of the scene that are filmed
EVERY = 0.25  # seconds between two pictures of it, at least


@contextlib.contextmanager
def chromium(*flags):
    with sync_playwright() as play:
        plain = "--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--hide-scrollbars"
        chrome = play.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=[*plain, *flags]
        )
        yield chrome
        chrome.close()


@contextlib.contextmanager
def server():
    """The address of a server of pages, with the model of the run."""
    with tempfile.TemporaryDirectory() as home:
        command = [
            sys.executable,
            ROOT / "infer.py",
            f"checkpoint={RUN}",
            "source=browser",
            "source.port=0",
            f"source.key={home}/key",
        ]
        program = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
        yield next(line.split()[1] for line in program.stderr if line.startswith("open http"))
        program.terminate()
        program.wait()


def picture(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def save(image, name, **how):
    path = ROOT / "docs" / name
    image.save(path, **{"quality": 80, "method": 6} | how)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def page():
    """The live page: as a film, light, dark, and on a phone."""
    with tempfile.TemporaryDirectory() as folder:
        wave, rate = soundfile.read(SCENE, dtype="float32")
        scene = Path(folder) / "scene.wav"  # with quiet behind it, as the fake microphone begins anew
        soundfile.write(scene, np.concatenate([wave, 1e-3 * np.random.default_rng(0).standard_normal(60 * rate)]), rate)
        fake = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
        with server() as url, chromium(*fake, f"--use-file-for-fake-audio-capture={scene}%noloop") as chrome:
            seen = chrome.new_page(viewport={"width": 1000, "height": 640})
            seen.goto(url)
            seen.locator("#start:enabled").click()
            seen.wait_for_function(
                "from => Number(document.querySelector('#start').dataset.tick) > from", arg=FILM[0] * rate, timeout=0
            )
            film = []
            cast = seen.context.new_cdp_session(seen)

            def keep(frame):
                film.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
                cast.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

            cast.on("Page.screencastFrame", keep)
            cast.send("Page.startScreencast", {"format": "png"})
            seen.wait_for_timeout(1000 * (FILM[1] - FILM[0]))
            cast.send("Page.stopScreencast")
            for name, scheme, width in (("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)):
                seen.set_viewport_size({"width": width, "height": 800})
                seen.emulate_media(color_scheme=scheme)
                seen.wait_for_timeout(300)
                save(picture(seen.screenshot(full_page=True)), f"page_{name}.webp")
    kept = []
    for moment, data in sorted(dict(film).items()):
        if not kept or moment - kept[-1][0] >= EVERY:
            kept.append((moment, data))
    frames = [picture(data) for _, data in kept]
    durations = [round(1000 * seconds) for seconds in [*np.diff([moment for moment, _ in kept]), 2.0]]
    save(frames[0], "page.webp", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60)


def report():
    """The upper part of the report of the training."""
    with chromium() as chrome:
        seen = chrome.new_page(viewport={"width": 1000, "height": 560})
        seen.goto((RUN / "report.html").as_uri())
        save(picture(seen.screenshot()), "report.webp")


class Panel(Console):
    """The console of a terminal, as it is at a moment of the scene."""

    def __init__(self):
        super().__init__()
        self.terminal = Terminal(
            file=io.StringIO(), force_terminal=True, width=WIDTH, height=24, color_system="truecolor", highlight=False
        )
        self.lines, self.shown = [], None

    def say(self, line):
        self.lines.append(line)

    def redraw(self):
        if self.now >= SHOT and self.shown is None:
            self.seen, self.shown = list(self.lines), self.panel()


def console():
    """The console while it listens to the scene."""
    sink = Panel()
    shown = RichConsole(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", highlight=False)
    model, _ = open_model(str(RUN), live=True, block=0.1)
    sink.setup(model.labels, [])
    with contextlib.chdir(SCENE.parent):
        listen(model, File(SCENE.name, realtime=True), sink, 0.1, model.decoder())
    sink.live.stop()
    command = "$ python infer.py checkpoint=runs/demo source.path=scene.wav source.realtime=true"
    shown.print(Text("\n").join([*map(Text, [command, *sink.seen]), sink.shown, Text("")]))
    path = ROOT / "docs" / "console.svg"
    fonts = re.compile(r"@font-face {.*?}", re.DOTALL)  # of another host
    path.write_text(fonts.sub("", shown.export_svg(title="infer.py")))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for name in sys.argv[1:] or ("page", "report", "console"):
        {"page": page, "report": report, "console": console}[name]()
