"""The chunk law and an event's life, from a real run: docs/law.svg and docs/event.svg.

PYTHONPATH=. python docs/figures/streams.py RUN     RUN: a model of the embedded sounds, such as that of `make run`
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.synthetic_sounds import write_demo
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream

DOCS = Path(__file__).resolve().parents[1]
GREY, GREEN, ORANGE, BLUE = "#7d838c", "#00897b", "#d9730d", "#7676d8"
STYLE = {
    "svg.hashsalt": "rivulet", "svg.fonttype": "none", "font.size": 10, "text.color": GREY, "axes.labelcolor": GREY,
    "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.spines.top": False,
    "axes.spines.right": False, "font.family": "sans-serif",
}  # fmt: skip
SHOWN = 3.5, 10.0  # seconds of the scene, for the law


def run(model: Any, sound: Any, sizes: Any) -> tuple[Any, list[Any]]:
    """Posteriors (T, K) and events of the sound in chunks of such sizes."""
    stream, posteriors, events, at = Stream(model), [], [], 0
    for size in sizes:
        events += stream.push(sound[at : at + size])
        posteriors.append(stream.posteriors)
        at += size
    events += stream.close()
    return np.concatenate([*posteriors, stream.posteriors]), events


def draw_law(model: Any, sound: Any, cuts: Any, whole: Any, pieces: Any) -> Figure:
    """Features of the sound, cut at random, above the posteriors of the whole and of the pieces."""
    import torch

    with torch.no_grad():
        features, _ = model.extractor(torch.from_numpy(sound)[None], model.extractor.initial(1))
    fine, seconds = model.extractor.hop / model.rate, model.hop / model.rate
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 1])
    shown = features[0][round(SHOWN[0] / fine) : round(SHOWN[1] / fine)]
    above.imshow(
        shown.T.numpy(), origin="lower", aspect="auto", extent=(*SHOWN, 0, shown.shape[1]), cmap="magma", vmin=-9
    )
    above.set_ylabel("mel band")
    above.set_title(f"{len(cuts)} chunks of 1 to 8,000 samples: white lines are where they end", fontsize=10)
    above.vlines(cuts, 0, shown.shape[1], colors="white", linewidth=0.7, alpha=0.9)
    said = "equal to the bit" if np.array_equal(whole, pieces) else f"apart by {np.abs(whole - pieces).max():.1g}"
    first, last = (round(edge / seconds) for edge in SHOWN)
    times, whole, pieces = (np.arange(first, last) + 1) * seconds, whole[first:last], pieces[first:last]
    for number, label in enumerate(model.labels):
        if label != "background" and whole[:, number].max() > 0.5:
            (line,) = below.plot(times, whole[:, number], linewidth=3, alpha=0.45)
            below.plot(times, pieces[:, number], "o", markersize=2.2, color=line.get_color())
            below.text(times[np.argmax(whole[:, number])], 1.05, label, color=line.get_color(), ha="center")
    below.set(xlim=SHOWN, ylim=(0, 1.2), xlabel="seconds", ylabel="posterior")
    below.set_title(f"lines: all at once; dots: chunk by chunk, the state handed on; {said}", fontsize=10)
    return figure


def draw_event(model: Any, posteriors: Any, event: Any) -> Figure:
    """The posterior of an event's label with its thresholds, and what the decoder makes of it."""
    decoder, number, step = model.decoder(), model.labels.index(event.label), model.hop / model.rate
    start, end, peak = (tick / model.rate for tick in (event.start, event.end, event.peak))
    times, scores = np.arange(len(posteriors)) * step, posteriors[:, number]
    high, low = decoder.high[number], decoder.low[number]
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    axes.step(times, scores, where="post", color=GREEN, linewidth=2)
    for level, name in ((high, f"threshold {high:.2g}"), (low, f"release {low:.2g}")):
        axes.axhline(level, color=ORANGE, linewidth=1.2, linestyle="--")
        axes.text(start - 0.78, level + 0.015, name, color=ORANGE)
    axes.axvspan(start, end, color=BLUE, alpha=0.16, linewidth=0)
    marks = [
        (start, high, "start: reaches\nthe threshold", -0.62, 0.2),
        (peak, event.score, "peak: its score", 0.12, 0.08),
        (end, low, "end: falls below\nthe release", 0.18, 0.05),
    ]
    for x, y, words, dx, dy in marks:
        arrow = {"arrowstyle": "->", "color": GREY}
        axes.annotate(words, (x, y), (x + dx, min(y + dy, 1.08)), arrowprops=arrow, va="center")
    axes.text(
        (start + end) / 2, 0.06, f"{event.label}, {end - start:.2f} s, score {event.score:.2f}", color=BLUE, ha="center"
    )
    axes.set(xlim=(start - 0.8, end + 0.9), ylim=(0, 1.15), xlabel="seconds", ylabel=f"posterior of {event.label}")
    return figure


def draw(run_folder: str) -> dict[str, Figure]:
    """Both figures by name."""
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), clips=0)
        sound, _ = soundfile.read(Path(folder) / "scene.wav", dtype="float32")
    model = load(run_folder).for_streaming()
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 8000, 400)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), len(sound)) + 1]
    whole, events = run(model, sound, [len(sound)])
    pieces, _ = run(model, sound, sizes)
    cuts = np.cumsum(sizes) / model.rate
    return {
        "law": draw_law(model, sound, cuts, whole, pieces),
        "event": draw_event(model, whole, max(events, key=lambda event: wavers(model, whole, event))),
    }


def wavers(model: Any, posteriors: Any, event: Any) -> tuple[bool, int]:
    """Whether an event's posterior fell below the threshold, and rose again, without ending it; and its length."""
    number = model.labels.index(event.label)
    inside = posteriors[event.start // model.hop : event.end // model.hop, number]
    below = np.flatnonzero(inside < model.decoder().high[number])
    return bool(len(below) and (inside[below[0] :] >= model.decoder().high[number]).any()), event.end - event.start


if __name__ == "__main__":
    with matplotlib.rc_context(STYLE):
        for name, figure in draw(sys.argv[1]).items():
            figure.savefig(DOCS / f"{name}.svg", transparent=True, metadata={"Date": None}, dpi=80)
