"""From a sound to its label on the page: a fake microphone in headless Chromium, the server on loopback, 100-ms blocks.

    python benchmarks/page.py [RUN] [SCENES]

RUN is a run of `make run` (runs/demo); each of the SCENES (10) is 30 s of eleven embedded sounds, made anew. Measured
for every sound that was named: from its onset in what the page heard until its label stands in the DOM; how much of that
the model needs to be sure, up to the end of the block that opens the event; and from the end of each block, as captured,
until its posteriors stand in the DOM.
"""

import base64
import os
import sys
import tempfile
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
from pipeline.streaming.stream import Stream

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


def heard(sent):
    """What the page heard, samples ``(N,)``, and when each was captured ``(N,)``: milliseconds of its clock, by the least
    late of the frames of three seconds.
    """
    pieces, starts = [], []
    for at, text in sent:
        data = base64.b64decode(text)
        kind, _, _, length, tick = HEADER.unpack_from(data)
        if kind != SOUND or tick != sum(map(len, pieces)):
            raise SystemExit("error: the page lost sound, as the machine is too busy: run it again")
        pieces.append(np.frombuffer(data[HEADER.size :], "<i2"))
        starts.append(at - 1000 * (tick + length) / RATE)
    near = round(1.5 * RATE / len(pieces[0]))
    least = [min(starts[max(0, k - near) : k + near]) for k in range(len(starts))]
    sound = np.concatenate(pieces)
    return sound, np.repeat(least, list(map(len, pieces))) + np.arange(len(sound)) * 1000 / RATE


def place(sound, piece, start):
    """Where a piece of the scenes begins in what was heard: within two seconds of its place."""
    window = np.pad(sound, 2 * RATE)[start : start + len(piece) + 4 * RATE].astype(float)
    alike = np.fft.irfft(np.fft.rfft(window) * np.conj(np.fft.rfft(piece, len(window))), len(window))
    return start - 2 * RATE + int(np.argmax(alike[: 4 * RATE]))


def opened(model, sound):
    """What is open after each block: rows of (samples until then, labels)."""
    stream, rows = Stream(model, round(0.1 * RATE / model.hop)), []
    for end in range(stream.size, len(sound) + 1, stream.size):
        stream.push(sound[end - stream.size : end] / np.float32(32768))
        rows.append((end, {event.label for event in stream.open}))
    return rows


def main():
    run = sys.argv[1] if len(sys.argv) > 1 else "runs/demo"
    model, _ = open_model(run)
    wave, truth = scenes(int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    with tempfile.TemporaryDirectory() as folder:
        sent, named, steps = listen(Path(run).resolve(), wave, Path(folder))
    sound, times = heard(sent)
    width, rows, late, sure = len(model.labels), opened(model, sound), [], []
    shown = [at - times[(first + many // width) * model.hop - 1] for at, first, many in steps if many]
    for start, end, label in truth:
        piece, most = wave[round(start * RATE) : round(end * RATE)], 1000 * (end - start) + 500
        first = place(sound, piece, round(start * RATE))
        waits = [at - times[first] for at, text in named if label in text.split(", ")]
        late += [wait for wait in waits if 0 <= wait < most][:1]
        waits = [1000 * (at - first) / RATE for at, labels in rows if label in labels]
        sure += [wait for wait in waits if 0 <= wait < most][:1]
    measured = {
        "onset of a sound to its label": late,
        "of that, until the model is sure": sure,
        "end of a block to its posteriors": shown,
    }
    found = [
        (what, len(times), *(f"{one:.0f}" for one in np.quantile(times, [0.5, 0.9, 0.99])))
        for what, times in measured.items()
    ]
    note = f"{len(truth)} sounds, Chromium on loopback, blocks of 0.1 s; load of the machine {os.getloadavg()[0]:.1f}"
    report("page", ("in the DOM", "count", "p50 ms", "p90 ms", "p99 ms"), found, note)


if __name__ == "__main__":
    main()
