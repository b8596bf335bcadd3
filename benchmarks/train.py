"""How many clips a second does training get through? One epoch, against a loop as one would write it.

    python benchmarks/train.py FOLDER [--workers 0 2] [--rounds 3] [--clips 2445] [--encoder conv_recurrent recurrent]

FOLDER holds a manifest of sounds (sc12: one second each, of speakers). Ours is Trainer.fit with the defaults of conf/
(batches of 32, augment=light: level, shift, speed, noise, masks; AdamW, gradient clipping, carried states, checks of
the loss) on clips from the cache; the epoch is timed as history.jsonl has it, with a validation of 24 clips, and without
the first one. The loops are torch.nn and torchaudio alone: DataLoader, MelSpectrogram and log, standardised, the same
convolutions (Conv1d, LayerNorm, GELU, dropout), nn.GRU of the same size, LayerNorm, dropout and Linear, mean over the
clip's steps, cross-entropy, AdamW, clipping of the gradient.

Epochs end with what ours does then (validation, last.ckpt, the best model): take all clips, or it weighs too much.

* bare: without any augmentation, on the same cached arrays as ours;
* augmented: level, shift, white noise on half of the clips, and torchaudio's masks, twice each; no speed;
* files: augmented, and soundfile decodes in the workers, as most loops do it (soxr would resample; here none needs it).

Everything with torch.set_num_threads(1), turns taken round by round, medians. Seconds are those of the clock and those of
processors, workers included: the latter hardly depend on what else the machine does (ours are those of two epochs less
those of one). Ours has a LayerNorm between two recurrent layers, which nn.GRU lacks.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import soundfile
import torch
from conftest import configured
from table import report
from torch import nn
from torch.nn.functional import cross_entropy, gelu, pad
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import FrequencyMasking, MelSpectrogram, TimeMasking

from datasets.manifest import Manifest
from pipeline.augmentations.augmentation import Augmentation
from pipeline.core.build import build
from pipeline.model.classifier import Classifier
from pipeline.model.file import PARTS
from pipeline.training.trainer import Trainer

RATE, HOP = 16000, 160


def processors():
    """Seconds of processors that this process and its ended children have had."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Plain(nn.Module):
    """The network of ours in torch.nn."""

    def __init__(self, classes, encoder):
        super().__init__()
        sizes, self.convs, self.norms = [64], nn.ModuleList(), nn.ModuleList()
        for conv in encoder["convolutions"]:
            self.convs.append(nn.Conv1d(sizes[-1], conv["channels"], conv["kernel"], conv["stride"]))
            self.norms.append(nn.LayerNorm(conv["channels"]))
            sizes.append(conv["channels"])
        self.gru = nn.GRU(sizes[-1], encoder["hidden"], encoder["layers"], batch_first=True)
        self.after = nn.LayerNorm(encoder["hidden"])
        self.dropout, self.linear = nn.Dropout(encoder["dropout"]), nn.Linear(encoder["hidden"], classes)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = pad(x.transpose(1, 2), (conv.kernel_size[0] - conv.stride[0], 0))
            x = self.dropout(gelu(norm(conv(x).transpose(1, 2))))
        return self.linear(self.dropout(self.after(self.gru(x)[0])))


class Waves(Dataset):
    """Cached arrays or files; a sample is ``(wave, label)``."""

    def __init__(self, split, files):
        self.split, self.files = split, files

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        clip = self.split.clips[index]
        wave = soundfile.read(clip.path, dtype="float32")[0] if self.files else self.split.load(clip)[0]
        return torch.from_numpy(wave), self.split.index[clip.label]


def padded(samples):
    waves, labels = zip(*samples)
    lengths = torch.tensor([len(wave) for wave in waves])
    return nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths, torch.tensor(labels)


class Loop:
    """A training loop by hand; ``epoch()`` is the seconds of one."""

    def __init__(self, split, classes, encoder, workers, augmented, files):
        self.loader = DataLoader(Waves(split, files), 32, shuffle=True, collate_fn=padded, num_workers=workers)
        self.mel = MelSpectrogram(RATE, 512, 400, HOP, 20.0, n_mels=64, center=False, norm="slaney", mel_scale="slaney")
        self.network, self.augmented = Plain(classes, encoder), augmented
        self.masks = [TimeMasking(10, iid_masks=True), FrequencyMasking(8, iid_masks=True)] * 2
        self.mean, self.std = -8.0, 4.0
        self.adapt = torch.optim.AdamW(self.network.parameters(), 0.003, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adapt, lambda step: min(1.0, step / 77))

    def changed(self, x):
        rows = len(x)
        x = x * 10 ** ((torch.rand(rows, 1) * 2 - 1) * 6 / 20)
        shifts = torch.randint(-1600, 1601, (rows,)).tolist()
        x = torch.stack([row.roll(by) for row, by in zip(x, shifts)])
        level = x.square().mean(1, keepdim=True).sqrt() * 10 ** (-(10 + 30 * torch.rand(rows, 1)) / 20)
        return x + torch.randn_like(x) * level * (torch.rand(rows, 1) < 0.5)

    def epoch(self):
        self.network.train()
        started, total, hits = time.perf_counter(), 0.0, 0
        for x, lengths, labels in self.loader:
            if self.augmented:
                x = self.changed(x)
            y = ((self.mel(pad(x, (512 - HOP, 0))) + 1e-6).log() - self.mean) / self.std
            for mask in self.masks if self.augmented else []:
                y = mask(y[:, None])[:, 0]
            logits = self.network(y.transpose(1, 2))
            there = torch.arange(logits.shape[1]) < (lengths * logits.shape[1] / x.shape[1]).ceil()[:, None]
            answer = (logits * there[..., None]).sum(1) / there.sum(1, keepdim=True)
            loss = cross_entropy(answer, labels, label_smoothing=0.05)
            self.adapt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.adapt.step()
            self.schedule.step()
            total, hits = total + loss.item(), hits + int((answer.argmax(1) == labels).sum())
        assert np.isfinite(total) and hits
        return time.perf_counter() - started

    def measured(self):
        """Seconds of an epoch by the clock, and of processors."""
        before = processors()
        return self.epoch(), processors() - before


class Ours:
    """Trainer.fit, two epochs at a time."""

    def __init__(self, split, val, labels, config, workers):
        self.split, self.val, self.labels, self.config, self.workers = split, val, labels, config, workers

    def measured(self):
        first, before = processors(), self.fit(1)
        middle, seconds = processors(), self.fit(2)
        assert before
        return seconds, (processors() - middle) - (middle - first)

    def fit(self, epochs):
        """Seconds of the last epoch by the clock."""
        settings = self.config["trainer"] | {"epochs": epochs, "workers": self.workers, "threads": 1}
        coach = build(settings, Trainer, at="trainer")
        change = build(self.config["augment"], Augmentation, at="augment")
        coach.seed(0)
        model = Classifier({part: self.config[part] for part in PARTS}, self.labels)
        with tempfile.TemporaryDirectory() as out:
            config = self.config
            done = coach.fit(model, None, self.split, self.val, config["optimizer"], change, Path(out), config)
        return done.history[-1]["seconds"]


def clips(folder, count, cache):
    data = Manifest(folder, cache=cache)
    train, val = (data.split(name, build(configured()["extractor"], at="extractor").spec) for name in ("train", "val"))
    order = np.random.default_rng(0).permutation(len(train))[:count]
    train.clips = [train.clips[index] for index in order]
    val.clips = val.clips[:: max(1, len(val.clips) // 24)][:24]
    return train, val, data.labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--encoder", nargs="+", default=["conv_recurrent", "recurrent"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=10**9)
    parser.add_argument("--cache", default="default")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    train, val, labels = clips(asked.folder, asked.clips, asked.cache)
    rows = []
    for encoder in asked.encoder:
        config = configured("train", f"encoder={encoder}", *(["encoder.layers=2"] if encoder == "recurrent" else []))
        model = Classifier({part: config[part] for part in PARTS}, labels)
        for workers in asked.workers:
            torch.set_num_threads(1)
            ways = {"Rivulet, augmented": Ours(train, val, labels, config, workers)}
            for name, augmented, files in (("bare", False, False), ("augmented", True, False), ("files", True, True)):
                ways[f"torchaudio and nn.GRU, {name}"] = Loop(
                    train, len(labels), config["encoder"], workers, augmented, files
                )
            times = {name: [] for name in ways}
            for turn in range(asked.rounds + 1):
                for name, way in ways.items():
                    seconds = way.measured()
                    if turn:
                        times[name].append(seconds)
            middle = {name: [statistics.median(kind) for kind in zip(*taken)] for name, taken in times.items()}
            base = middle["Rivulet, augmented"]
            for name, way in ways.items():
                count = sum(p.numel() for p in getattr(way, "network", model).parameters() if p.requires_grad)
                clock, used = middle[name]
                walls = [wall for wall, _ in times[name]]
                row = [f"{len(train) / clock:.0f}", f"{min(walls):.2f} ... {max(walls):.2f}", f"{base[0] / clock:.2f}"]
                rows.append([encoder, workers, name, f"{count:,}", *row, f"{used:.2f}", f"{base[1] / used:.2f}"])
    columns = ["encoder", "workers", "way", "parameters", "clips/s", "seconds", "times ours", "CPU s", "times ours"]
    note = f"one epoch of {len(train)} clips of {Path(asked.folder).name}, batches of 32, torch.set_num_threads(1), {asked.rounds} rounds in turns; others on this machine: load {os.getloadavg()[0]:.1f}"
    report("train", columns, rows, note)


if __name__ == "__main__":
    main()
