"""How well does a model of strings hear what is said, live? Strings of words of its own test split, in one stream.

    python benchmarks/strings.py RUN [RUN ...] [FEWEST-MOST] [val] [picture]        (2-4 commands; 3-7 words if not given)

RUN is the folder of a training with dataset.scene.strings; its settings say which data and which split, so nothing of
the test was learnt from; val: the clips by which the model was chosen. For each of three kinds of pauses between words
(none; to 0.1 s; 0.2 to 0.5 s) 100 strings are composed with a fixed seed, each of clips of one speaker, less the silence
around their sound. Words that the model never tells are in none. They follow one another in a stream with pauses of
2 s; 40 dB below them there is white noise.

The live model hears 0.1 s at a time. Wrong tokens are those that were swapped, lost and added, by the true ones
(torchmetrics). A delay is the time from the end of a word's sound to when its event is told, of strings that are right.
With a list (decoder.phrases) of the first 20 strings: how many of them are told, and of how many of the others one is.

Keeps the table under benchmarks/results/; with picture, it also draws docs/strings.png of the first run.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import numpy as np
import torch
from safetensors import safe_open
from table import report  # beside this file
from torchmetrics.functional.text import word_error_rate

from datasets.strings import Composed, StringSettings
from pipeline.core.build import build
from pipeline.decoders.transcript import Phrase
from pipeline.model.open import open_model
from pipeline.streaming.stream import Stream

matplotlib.use("Agg")
from matplotlib import pyplot

PAUSES = {"none": (0.0, 0.0), "to 0.1 s": (0.0, 0.1), "0.2 to 0.5 s": (0.2, 0.5)}
STRINGS, BETWEEN, NOISE, BLOCK, LISTED = 100, 2.0, -40.0, 0.1, 20
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "strings.png"


def settings_of(run):
    """The settings of a training, as it wrote them."""
    with safe_open(f"{run}/model.safetensors", "np") as file:
        return json.loads(file.metadata()["rivulet"])["trained"]["settings"]


def composed(run, model, split, count, pause):
    """Strings of a split: samples, and the start, end and label of each word."""
    data = build(settings_of(run)["dataset"], at="dataset")
    clips = data.split(split, model.spec)
    clips = getattr(clips, "split", clips)  # less what is composed of them
    told = {model.labels[column] for column in model.decoder().audible}
    clips.clips = [clip for clip in clips.clips if clip.label in told]
    speakers = [clip.speaker or clip.group for clip in clips.clips]
    settings = StringSettings(count=count, pauses=[pause], edge=(BETWEEN / 2, BETWEEN / 2))
    made = Composed(clips, settings, clips.index[data.background], model.rate, speakers, drawn=True)
    order = np.random.default_rng(0).permutation(len(clips))
    for number in range(STRINGS):
        made.epoch, index = 1000 + number // len(order), int(order[number % len(order)])
        sample = made[index]
        yield sample.x[0], [(start, end, data.labels[label]) for start, end, label in sample.spans]


class Heard:
    """What a model tells of strings, one after another: of each its tokens and phrases with the sample at which they are
    told; and the posteriors.
    """

    def __init__(self, model, strings):
        self.model, self.edges = model, np.cumsum([0, *(len(samples) for samples, _ in strings)])
        self.truth = [" ".join(label for *_, label in spans) for _, spans in strings]
        self.ends = [[end for _, end, _ in spans] for _, spans in strings]
        stream = Stream(model, round(BLOCK * model.rate / model.hop))
        wave = np.concatenate([samples for samples, _ in strings])
        loud = np.sqrt(np.mean(wave[wave != 0] ** 2))
        wave += (loud * 10 ** (NOISE / 20) * np.random.default_rng(1).standard_normal(len(wave))).astype(np.float32)
        self.tokens, self.phrases, rows = [[] for _ in strings], [[] for _ in strings], []
        for start in range(0, len(wave), stream.size):
            self.add(stream.push(wave[start : start + stream.size]), min(len(wave), start + stream.size))
            rows.append(stream.posteriors)
        self.add(stream.close(), len(wave))
        self.posteriors = np.concatenate([*rows, stream.posteriors])

    def place(self, event):
        """In which string an event is."""
        middle = (event.start + event.end) / 2
        return min(len(self.truth), int(np.searchsorted(self.edges, middle, side="right"))) - 1

    def add(self, events, now):
        for event in events:
            at = self.place(event)
            (self.phrases if isinstance(event, Phrase) else self.tokens)[at].append((event.label, now - self.edges[at]))

    def told(self):
        return [" ".join(label for label, _ in tokens) for tokens in self.tokens]

    def of_list(self):
        """With a list of the first strings: how many are told, and of how many others one of them is."""
        listed = self.truth[:LISTED]
        decoder = self.model.decoder(phrases=listed, tell="phrases")
        found = {self.place(event): event.label for event in decoder.decode(self.posteriors) + decoder.close()}
        others = [k for k, text in enumerate(self.truth) if text not in listed]
        return sum(found.get(k) == text for k, text in enumerate(listed)), sum(k in found for k in others), len(others)


def row_of(name, pause, heard):
    """A row of the table for what was heard in some streams, the share of wrong tokens, and that of right strings."""
    truth, told = [text for one in heard for text in one.truth], [text for one in heard for text in one.told()]
    phrases = [" | ".join(label for label, _ in found) for one in heard for found in one.phrases]
    right = np.array(truth) == np.array(told)
    pairs = [(ends, tokens) for one in heard for ends, tokens in zip(one.ends, one.tokens)]
    late = [[at - end for end, (_, at) in zip(*pair)] for pair, good in zip(pairs, right) if good]
    delays = *np.quantile(np.concatenate(late), [0.5, 0.9]), np.quantile([one[-1] for one in late], 0.9)
    wrong, rate = float(word_error_rate(told, truth)), heard[0].model.rate
    listed = np.array([one.of_list() for one in heard]).sum(0)
    shares = (f"{100 * share:.2f}" for share in (wrong, right.mean(), np.mean(np.array(truth) == np.array(phrases))))
    words = sum(len(text.split()) for text in truth)
    lists = f"{listed[0]} of {LISTED * len(heard)}, {listed[1]} of {listed[2]}"
    return (
        [name, pause, len(truth), words, *shares, lists, *(f"{one / rate:.2f}" for one in delays)],
        wrong,
        right.mean(),
    )


def draw(heard, strings):
    """What the model hears of a string of six words, or the longest: words, posteriors, and when it tells them."""
    at = max(range(len(strings)), key=lambda k: min(6, len(strings[k][1])))
    model, (samples, spans) = heard.model, strings[at]
    first, last = (edge // model.hop for edge in heard.edges[at : at + 2])
    figure, axis = pyplot.subplots(figsize=(9, 3), layout="constrained")
    seconds = np.arange(last - first) * model.hop / model.rate
    for column in model.decoder().audible:
        axis.plot(seconds, heard.posteriors[first:last, column], label=model.labels[column])
    for start, end, label in spans:
        axis.axvspan(start / model.rate, end / model.rate, color="0.9", zorder=0)
        axis.text((start + end) / 2 / model.rate, 1.04, label, ha="center")
    for label, told in heard.tokens[at]:
        axis.annotate(
            label, (told / model.rate, -0.02), (told / model.rate, -0.16), ha="center", arrowprops={"arrowstyle": "->"}
        )
    axis.set(xlabel="seconds", ylabel="posterior", ylim=(-0.2, 1.15), xlim=(0.5, len(samples) / model.rate - 0.3))
    figure.savefig(PICTURE, dpi=100)


def main():
    counts = [one for one in sys.argv[1:] if re.fullmatch(r"\d+-\d+", one)] or ["3-7"]
    split = "val" if "val" in sys.argv[1:] else "test"
    runs = [Path(one) for one in sys.argv[1:] if one not in (*counts, "val", "picture")]
    if not runs:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    count, table, wrong, right = tuple(map(int, counts[0].split("-"))), [], [], []
    for run in runs:
        (model, _), every = open_model(str(run)), []
        for name, pause in PAUSES.items():
            strings = list(composed(run, model, split, count, pause))
            every.append(Heard(model, strings))
            table.append(row_of(run.name, name, every[-1:])[0])
            if run == runs[0] and "picture" in sys.argv[1:] and name == "to 0.1 s":
                draw(every[-1], strings)
        row, *shares = row_of(run.name, "all", every)
        table.append(row)
        wrong.append(shares[0])
        right.append(shares[1])
    columns = ["run", "pauses", "strings", "tokens", "wrong tokens %", "strings right %", "phrases right %",
               f"list of {LISTED}: told, others", "delay s", "90 %", "of the last, 90 %"]  # fmt: skip
    name = Path(settings_of(runs[0])["dataset"]["root"]).name
    note = f"{count[0]} to {count[1]} words of {name}'s {split} split; mean of {len(runs)} runs: {100 * np.mean(wrong):.2f} % of the "
    report(f"strings-{runs[0].name}{'-val' * (split == 'val')}", columns, table,
           f"{note}tokens wrong, {100 * np.mean(right):.2f} % of the strings right")  # fmt: skip


if __name__ == "__main__":
    main()
