"""How long does a chunk take, from samples to posteriors? One thread, one stream.

    python benchmarks/latency.py [MODEL.safetensors]

Ours is Stream.push on 10-, 20- and 100-ms chunks, with the block as long as the chunk: log-mel (64), one or two GRU
layers of 128 (or the model given), mean head, smoothing, guards and event decoder, by the exported graph and by torch. The baselines do the same work the
usual ways, with the same weights' shapes, in the same run:

* by hand: torchaudio's log-mel of the chunk behind its context, nn.GRU and nn.Linear, all states kept by hand (no layer
  normalisation, pooling, smoothing, guards, and events, which favours it);
* librosa, torchaudio, last second anew: keep the last second of samples, compute its whole log-mel picture for every
  chunk, and run the network over that second from a fresh state.

Ours and by hand take turns, chunk by chunk. The others come after them: librosa's threads would disturb both.
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of numpy; before it is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import librosa
import numpy as np
import torch
import torchaudio
from graphs import as_graph  # beside this file, as the next
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from table import report

from pipeline.encoders.recurrent import RecurrentLayer
from pipeline.model.classifier import Classifier, load
from pipeline.streaming.stream import Stream

ROUNDS = 300
OURS = "Rivulet, Stream.push"
ROOT = Path(__file__).resolve().parent.parent


def plain_model(layers):
    settings = ["encoder=recurrent", f"encoder.layers={layers}", "encoder.hidden=128", "head=mean"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=settings), resolve=True)
    return Classifier(config, [f"class{number}" for number in range(12)]).eval().for_streaming()


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


class ByHand:
    """The modules of torchaudio and torch, with their states kept by hand."""

    def __init__(self, model):
        e, hidden = model.extractor, model.encoder.out_shape[0]
        self.mel = torchaudio.transforms.MelSpectrogram(
            e.rate, e.fft, e.window, e.hop, 20.0, n_mels=e.out_shape[0], center=False, norm="slaney", mel_scale="slaney"
        )
        layers = len(model.encoder.stages)
        self.gru = torch.nn.GRU(e.out_shape[0], hidden, layers, batch_first=True)
        self.linear = torch.nn.Linear(hidden, len(model.labels))
        self.past, self.h = torch.zeros(e.fft - e.hop), torch.zeros(layers, 1, hidden)

    @torch.inference_mode()
    def push(self, chunk):
        x = torch.cat([self.past, torch.from_numpy(chunk)])
        self.past = x[len(chunk) :]
        y, self.h = self.gru((self.mel(x).T[None] + 1e-6).log(), self.h)
        return self.linear(y).softmax(-1).numpy()


def measure(name, model, milliseconds):
    """Rows for one chunk size: median and 99th percentile of every way."""
    size = model.rate * milliseconds // 1000
    steps = max(1, size // model.hop)
    graph = as_graph(model, Stream(model, steps).size)
    first = {OURS: Stream(graph, steps)}
    if all(isinstance(stage, RecurrentLayer) for stage in model.encoder.stages):
        first["torchaudio, nn.GRU by hand"] = ByHand(model)
    times = take_turns(first, size) | take_turns({"Rivulet, compute=torch": Stream(model, steps)}, size)
    times |= take_turns({"torchaudio, last second anew": by_torchaudio(model)}, size)
    times |= take_turns({"librosa, last second anew": by_librosa(model)}, size)
    base = np.median(times[OURS])
    percentiles = {way: np.percentile(taken, [50, 99]) * 1e6 for way, taken in times.items()}
    return [
        [name, f"{milliseconds} ms", way, f"{p50:.0f}", f"{p99:.0f}", f"{p50 / base / 1e6:.2f}"]
        for way, (p50, p99) in percentiles.items()
    ]


def take_turns(ways, size):
    """Seconds of every way for each chunk of ``size`` samples."""
    times = {name: [] for name in ways}
    rng = np.random.default_rng(0)
    for turn in range(ROUNDS + 20):
        chunk = (rng.standard_normal(size) * 0.1).astype(np.float32)
        for name, way in ways.items():
            start = time.perf_counter()
            way.push(chunk)
            if turn >= 20:
                times[name].append(time.perf_counter() - start)
    return times


def main():
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        models = {Path(sys.argv[1]).name: load(sys.argv[1]).for_streaming()}
    else:
        models = {f"{layers} x GRU-128": plain_model(layers) for layers in (1, 2)}
    rows = [row for name in models for size in (10, 20, 100) for row in measure(name, models[name], size)]
    counts = " and ".join(f"{model.parameter_count():,}" for model in models.values())
    note = f"{counts} parameters, batch 1, torch.set_num_threads(1), {ROUNDS} chunks each"
    report("latency", ["model", "chunk", "way", "p50 us", "p99 us", "times ours"], rows, note)


if __name__ == "__main__":
    main()
