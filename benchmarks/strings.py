"""How well does a model of strings hear what is said, live? Strings of words of its own test split, in one stream.

    python benchmarks/strings.py RUN [RUN ...] [FEWEST-MOST] [val]        (2-4 commands; 3-7 if not given)

RUN is the folder of a training with dataset.scene.strings; its settings say which data and which split, so nothing of
the test was learnt from; val: the clips by which the model was chosen. For each of three kinds of pauses between words (none; to 0.1 s; 0.2 to 0.5 s) 100 strings are
composed with a fixed seed, each of clips of one speaker, less the silence around their sound. Words that the model
never tells are in none. They follow one another in a stream with pauses of 2 s; 40 dB below them there is white noise.

The live model hears 0.1 s at a time. Wrong tokens are those that were swapped, lost and added, by the true ones
(torchmetrics). A delay is the time from the end of a word's sound to when its event is told, of strings that are right.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from safetensors import safe_open
from table import report  # beside this file
from torchmetrics.functional.text import word_error_rate

from datasets.strings import Composed, StringSettings
from pipeline.core.build import build
from pipeline.decoders.transcript import Phrase
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream

PAUSES = {"none": (0.0, 0.0), "to 0.1 s": (0.0, 0.1), "0.2 to 0.5 s": (0.2, 0.5)}
STRINGS, BETWEEN, NOISE, BLOCK = 100, 2.0, -40.0, 0.1


def settings_of(run):
    """The settings of a training, as it wrote them."""
    with safe_open(f"{run}/model.safetensors", "np") as file:
        return json.loads(file.metadata()["rivulet"])["trained"]["settings"]


def composed(run, model, split, count, pause):
    """Strings of a split: samples, and the ends of their words and labels."""
    data = build(settings_of(run)["dataset"], at="dataset")
    clips = data.split(split, model.spec).clips
    told = {model.labels[column] for column in model.decoder().audible}
    clips.clips = [clip for clip in clips.clips if clip.label in told]
    speakers = [clip.speaker or clip.group for clip in clips.clips]
    settings = StringSettings(count=count, pauses=[pause], edge=(BETWEEN / 2, BETWEEN / 2))
    made = Composed(clips, settings, clips.index[data.background], model.rate, speakers, drawn=True)
    order = np.random.default_rng(0).permutation(len(clips))
    for number in range(STRINGS):
        made.epoch, index = 1000 + number // len(order), int(order[number % len(order)])
        sample = made[index]
        yield sample.x[0], [(end, data.labels[label]) for _, end, label in sample.spans]


def listen(model, strings):
    """Of each string: what is told, when (in samples), and what the phrase says."""
    stream, rng, size = Stream(model, max(1, round(BLOCK * model.rate / model.hop))), np.random.default_rng(1), 0
    wave = np.concatenate([samples for samples, _ in strings])
    loud = np.sqrt(np.mean(wave[wave != 0] ** 2))
    wave = wave + (loud * 10 ** (NOISE / 20) * rng.standard_normal(len(wave))).astype(np.float32)
    edges = np.cumsum([0, *(len(samples) for samples, _ in strings)])
    tokens, phrases = [[] for _ in strings], [[] for _ in strings]
    for start in range(0, len(wave), stream.size):
        events = stream.push(wave[start : start + stream.size])
        size = min(len(wave), start + stream.size)
        for event in events + (stream.close() if size == len(wave) else []):
            at = min(len(strings) - 1, int(np.searchsorted(edges, (event.start + event.end) / 2, side="right")) - 1)
            (phrases if isinstance(event, Phrase) else tokens)[at].append((event.label, size - edges[at]))
    return tokens, phrases


def percent(value):
    return f"{100 * value:.2f}"


def figures(rows):
    """Rows of (truth, tokens, phrases): the columns of the table."""
    truth = [" ".join(label for _, label in spans) for spans, _, _ in rows]
    told = [" ".join(label for label, _ in tokens) for _, tokens, _ in rows]
    right = [one == other for one, other in zip(truth, told)]
    as_phrase = [one == " | ".join(label for label, _ in phrases) for one, (_, _, phrases) in zip(truth, rows)]
    late = [[at - end for (end, _), (_, at) in zip(row[0], row[1])] for row, good in zip(rows, right) if good]
    every, last = np.concatenate([*late, [0]])[:-1], [one[-1] for one in late]
    wrong = float(word_error_rate(told, truth))
    return wrong, np.mean(right), np.mean(as_phrase), np.quantile(every, [0.5, 0.9]), np.quantile(last, 0.9)


def line(name, pause, rows, rate):
    wrong, right, phrases, (middle, most), last = figures(rows)
    words = sum(len(spans) for spans, _, _ in rows)
    delays = (f"{value / rate:.2f}" for value in (middle, most, last))
    return [name, pause, len(rows), words, percent(wrong), percent(right), percent(phrases), *delays]


def main():
    counts = [one for one in sys.argv[1:] if re.fullmatch(r"\d+-\d+", one)] or ["3-7"]
    split = "val" if "val" in sys.argv[1:] else "test"
    runs, count = (
        [Path(one) for one in sys.argv[1:] if one not in (*counts, "val")],
        tuple(map(int, counts[0].split("-"))),
    )
    if not runs:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    table, wrong, right = [], [], []
    for run in runs:
        model, every = load(run / "model.safetensors").for_streaming(), []
        for name, pause in PAUSES.items():
            strings = list(composed(run, model, split, count, pause))
            rows = [(spans, *told) for (_, spans), *told in zip(strings, *listen(model, strings))]
            table.append(line(run.name, name, rows, model.rate))
            every += rows
        table.append(line(run.name, "all", every, model.rate))
        wrong.append(figures(every)[0])
        right.append(figures(every)[1])
    columns = ["run", "pauses", "strings", "tokens", "wrong tokens %", "strings right %", "phrases right %",
               "delay s", "90 %", "of the last, 90 %"]  # fmt: skip
    name = Path(settings_of(runs[0])["dataset"]["root"]).name
    note = f"{count[0]} to {count[1]} words of {name}'s {split} split; of all {len(runs)} runs {percent(np.mean(wrong))} % of the "
    report(f"strings-{name}" if split == "test" else f"strings-{name}-val", columns, table,
           f"{note}tokens wrong, {percent(np.mean(right))} % of the strings right")  # fmt: skip


if __name__ == "__main__":
    main()
