"""How long does a chunk take, from samples to posteriors? One thread, one stream.

    python benchmarks/latency.py [MODEL.safetensors]

Ours is Stream.push on 10-, 20- and 100-ms chunks, with the block as long as the chunk. The baselines do the same work
the usual ways, with the same weights' shapes, in the same run, taking turns:

* librosa-recompute, torchaudio-recompute: keep the last second of samples, compute its whole log-mel picture for every
  chunk, and run the network over that second from a fresh state;
* nn.GRU stateful: our incremental log-mel and convolutions, but a plain nn.GRU and Linear, state kept by hand.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import librosa
import numpy as np
import torch
import torchaudio
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from table import report  # beside this file

from pipeline.model import Classifier, load
from pipeline.stream import Stream

ROUNDS = 300
ROOT = Path(__file__).resolve().parent.parent


def plain_model():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=["encoder=recurrent", "head=mean"]), resolve=True)
    return Classifier(config, [f"class{number}" for number in range(12)]).eval().live


class Recompute:
    """The last second again and again."""

    def __init__(self, model, features):
        self.model, self.features = model, features
        self.past = np.zeros(model.rate, np.float32)

    def push(self, chunk):
        self.past = np.concatenate([self.past[len(chunk) :], chunk])
        with torch.inference_mode():
            x = self.features(self.past)[None]
            for stage in self.model.stages[1:]:
                x, _ = stage(x, stage.initial(1))
            return x


def by_librosa(model):
    e = model.extractor

    def features(x):
        mel = librosa.feature.melspectrogram(
            y=x, sr=e.rate, n_fft=e.fft, win_length=e.window, hop_length=e.hop, n_mels=e.out_shape[0], fmin=20.0
        )
        return torch.from_numpy(np.log(mel.T[:100] + 1e-6).astype(np.float32))

    return Recompute(model, features)


def by_torchaudio(model):
    e = model.extractor
    mel = torchaudio.transforms.MelSpectrogram(
        e.rate, e.fft, e.window, e.hop, 20.0, n_mels=e.out_shape[0], norm="slaney", mel_scale="slaney"
    )
    return Recompute(model, lambda x: (mel(torch.from_numpy(x)).T[:100] + 1e-6).log())


class PlainGRU:
    """Our front end, then torch's module with its state kept by hand."""

    def __init__(self, model):
        self.front = [model.extractor, model.standardize]
        width, hidden = model.encoder.in_shape[0], model.encoder.out_shape[0]
        self.gru = torch.nn.GRU(width, hidden, batch_first=True)
        self.linear = torch.nn.Linear(hidden, len(model.labels))
        self.states = [stage.initial(1) for stage in self.front]
        self.h = torch.zeros(1, 1, hidden)

    @torch.inference_mode()
    def push(self, chunk):
        x = torch.from_numpy(chunk)[None]
        for number, stage in enumerate(self.front):
            x, self.states[number] = stage(x, self.states[number])
        y, self.h = self.gru(x, self.h)
        return self.linear(y).softmax(-1)


def measure(model, milliseconds):
    """Rows for one chunk size: median and 99th percentile of every way, taking turns chunk by chunk."""
    size = model.rate * milliseconds // 1000
    steps = max(1, size // model.hop)
    ways = {
        "Rivulet, Stream.push": Stream(model, steps),
        "librosa, last second anew": by_librosa(model),
        "torchaudio, last second anew": by_torchaudio(model),
    }
    if model.encoder.hop == 1:
        ways["our log-mel, nn.GRU by hand"] = PlainGRU(model)
    times = {name: [] for name in ways}
    rng = np.random.default_rng(0)
    for turn in range(ROUNDS + 20):
        chunk = (rng.standard_normal(size) * 0.1).astype(np.float32)
        for name, way in ways.items():
            start = time.perf_counter()
            way.push(chunk)
            if turn >= 20:
                times[name].append(time.perf_counter() - start)
    base = np.median(times["Rivulet, Stream.push"])
    percentiles = {name: np.percentile(taken, [50, 99]) * 1e6 for name, taken in times.items()}
    return [
        [f"{milliseconds} ms", name, f"{p50:.0f}", f"{p99:.0f}", f"{p50 / base / 1e6:.2f}"]
        for name, (p50, p99) in percentiles.items()
    ]


def main():
    torch.set_num_threads(1)
    model = load(sys.argv[1]).live if len(sys.argv) > 1 else plain_model()
    rows = [row for milliseconds in (10, 20, 100) for row in measure(model, milliseconds)]
    note = (
        f"{model.parameter_count():,} parameters, batch 1, torch.set_num_threads(1), {ROUNDS} chunks each, taking turns"
    )
    report("latency", ["chunk", "way", "p50 us", "p99 us", "times ours"], rows, note)


if __name__ == "__main__":
    main()
