"""From a sound to its label on the page: a fake microphone in headless Chromium, the server on loopback, 100-ms blocks.

    python benchmarks/page.py [RUN] [SCENES]

RUN is a run of `make run` (runs/demo); each of the SCENES (10) is 30 s of eleven embedded sounds, made anew. Measured
for every sound that was named: from its onset in what the page heard until the label stands in the DOM. Without the time
that a model needs to be sure of a sound: from the end of a block, as captured, until its posteriors stand there.
"""

import base64
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright
from serving import HEADER, SOUND, served
from table import report  # beside this file

from datasets.synthetic_sounds import MAKERS, compose
from pipeline.model.open import open_model

RATE = 16000
KEEP = """
window.sent = []; window.named = []; window.steps = [];
document.addEventListener("steps", ({detail: {first, rows}}) => steps.push([performance.now(), first, rows.length]));
document.addEventListener("sent", ({detail}) => sent.push([performance.now(), btoa(String.fromCharCode(...detail))]));
addEventListener("DOMContentLoaded", () => new MutationObserver(() => named.push([performance.now(), document.getElementById("now").textContent]))
  .observe(document.getElementById("now"), {childList: true, characterData: true, subtree: true}));
"""


def scenes(count):
    """Sound ``(N,)`` and its truth, rows of (start, end, label) in seconds."""
    waves, truth = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        wave, spans = compose(rng, RATE, 30.0, [str(label) for label in rng.permutation(list(MAKERS))], (0.6, 1.7))
        truth += [(30 * seed + start / RATE, 30 * seed + end / RATE, label) for start, end, label in spans]
        waves.append(wave)
    return np.concatenate(waves), truth


def listen(run, wave, folder):
    """When (milliseconds) the page sent which frame, named what, and showed which steps."""
    path = folder / "scenes.wav"
    soundfile.write(path, np.concatenate([wave, np.zeros(60 * RATE)]), RATE, "PCM_16")
    flags = "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
    with served(run) as server, sync_playwright() as play:
        chrome = play.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*flags, f"--use-file-for-fake-audio-capture={path}%noloop"]
        )
        page = chrome.new_page()
        page.add_init_script(KEEP)
        page.goto(server.url)
        page.locator("#start:enabled").click()
        page.wait_for_timeout(1000 * len(wave) / RATE + 3000)
        page.click("#start")
        return [page.evaluate(what) for what in ("sent", "named", "steps")]


def onset_times(sent, wave):
    """Milliseconds of the page's clock at which tick 0 was captured, and the beginning of ``wave``."""
    pieces, starts = [], []
    for at, text in sent:
        data = base64.b64decode(text)
        kind, _, _, length, tick = HEADER.unpack_from(data)
        if kind == SOUND:
            pieces.append(np.frombuffer(data[HEADER.size :], "<i2"))
            starts.append(at - 1000 * (tick + length) / RATE)
    heard = np.concatenate(pieces).astype(np.float32)
    size = 1 << int(np.ceil(np.log2(len(heard) + len(wave))))
    alike = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wave, size)))
    lag = int(np.argmax(alike))
    return min(starts), min(starts) + 1000 * (lag - size * (lag > size // 2)) / RATE


def main():
    import tempfile

    run = sys.argv[1] if len(sys.argv) > 1 else "runs/demo"
    model, _ = open_model(run)
    wave, truth = scenes(int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    with tempfile.TemporaryDirectory() as folder:
        sent, named, steps = listen(Path(run).resolve(), wave, Path(folder))
    begun, zero = onset_times(sent, wave)
    width, ends = len(model.labels), 1000 * model.hop / RATE
    shown = [at - begun - (first + many / width) * ends for at, first, many in steps if many]
    late = []
    for start, end, label in truth:
        times = [at - zero - 1000 * start for at, text in named if label in text.split(", ")]
        late += [min(found)] if (found := [one for one in times if 0 <= one < 1000 * (end - start) + 500]) else []
    rows = [
        (what, len(times), *(f"{one:.0f}" for one in np.quantile(times, [0.5, 0.9, 0.99])))
        for what, times in (("onset of a sound to its label", late), ("end of a block to its posteriors", shown))
    ]
    note = f"{len(late)} of {len(truth)} sounds named, Chromium on loopback, blocks of 0.1 s"
    report("page", ("in the DOM", "count", "p50 ms", "p90 ms", "p99 ms"), rows, note)


if __name__ == "__main__":
    main()
