"""How many 16-kHz streams does one core serve in real time, with 99 % of the answers within 100 ms?

    python benchmarks/streams.py [SECONDS] [--wall]

Log-mel (64), two GRU layers of 128, a head, smoothing and the event decoder, by the exported graph; a chunk of 100 ms from each stream, the
arrivals spread evenly over 100 ms. Time passes as the thread computes (the reception of chunks and the script's own
loop included), and what would be spent waiting for the next chunk is skipped: so each way meets the queue that it would
meet in earnest. It is counted in CPU time, as others may use the machine; with --wall by the clock on the wall.
The number of streams is found by bisection, to 3 %: the most for which over SECONDS (default 4) the 99th percentile of
the waits, from the arrival of a chunk to its answer, is 100 ms at most, after a second of warming up. One thread, and
torch.set_num_threads(1). Near its limit a way is busy all the time, as smaller batches take more time for each stream.

Peers, in the same run, with the same shapes (their events are not decoded, which favours them):

* torchaudio and nn.GRU: torchaudio's log-mel of the chunk with its context, nn.GRU with its state kept by hand, stream
  by stream, or up to 64 streams as one batch;
* the same with torchaudio's log-mel of the last second anew, as is often done;
* silero-vad's ONNX file (another network) in onnxruntime, chunks of 32 ms, where both are installed (they are
  no requirement).
"""

import importlib.util
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torchaudio
from graphs import as_graph  # beside this file
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from table import report

from pipeline.model.classifier import Classifier
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

ROOT = Path(__file__).resolve().parent.parent
LIMIT, WARM, LOST = 0.1, 1.0, 1.0  # seconds: of the 99th percentile, of warming up, behind which a trial is given up
TILE = 64
NOW = time.perf_counter if "--wall" in sys.argv else time.thread_time
RNG = np.random.default_rng(0)
SOUND = (RNG.standard_normal(160_000) * 0.1 * (1 + np.sin(np.arange(160_000) / 9000))).astype(np.float32)


def plain_model():
    settings = ["encoder=recurrent", "encoder.layers=2", "encoder.hidden=128", "head=mean"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=settings), resolve=True)
    model = Classifier(config, [f"class{number}" for number in range(12)]).eval()
    with torch.no_grad():
        model.standardize.mean.fill_(-8.0)
        model.standardize.std.fill_(3.0)
    return model.for_streaming()


class Time:
    """Time that passes as this thread computes, and what was skipped."""

    def __init__(self):
        self.skipped = 0.0

    def __call__(self):
        return NOW() + self.skipped


class Ours:
    """The scheduler."""

    period = 0.1

    def __init__(self, count, clock, model, exact):
        self.scheduler = Scheduler(model, 10, TILE, exact, clock=clock)
        self.streams = [Stream(model, 10) for _ in range(count)]
        for stream in self.streams:
            self.scheduler.join(stream)

    def arrive(self, index, chunk, when):
        self.scheduler.feed(self.streams[index], chunk, when)

    def turn(self):
        return [answer.waited for answer in self.scheduler.turn()]


class Queue:
    """What all others share: first come, first served, ``tile`` chunks of different streams at a time."""

    period = 0.1

    def __init__(self, clock, tile):
        self.clock, self.tile, self.waiting = clock, tile, deque()

    def arrive(self, index, chunk, when):
        self.waiting.append((index, chunk, when))

    def turn(self):
        taken = []
        while self.waiting and len(taken) < self.tile:
            if taken and self.waiting[0][0] == taken[0][0]:
                break  # the same stream again; within one round none comes twice
            taken.append(self.waiting.popleft())
        if not taken:
            return []
        self.step([index for index, _, _ in taken], [chunk for _, chunk, _ in taken])
        now = self.clock()
        return [now - when for _, _, when in taken]


class Pushed(Queue):
    """``Stream.push``, one after another."""

    def __init__(self, count, clock, model):
        super().__init__(clock, 1)
        self.streams = [Stream(model, 10) for _ in range(count)]

    def step(self, indices, chunks):
        for index, chunk in zip(indices, chunks):
            self.streams[index].push(chunk)


class ByHand(Queue):
    """torchaudio's log-mel of the newest ``heard`` seconds, nn.GRU, Linear, softmax; the states in lists."""

    def __init__(self, count, clock, model, tile, heard):
        super().__init__(clock, tile)
        e = model.extractor
        self.mel = torchaudio.transforms.MelSpectrogram(
            e.rate, e.fft, e.window, e.hop, n_mels=64, f_min=20.0, center=False, norm="slaney", mel_scale="slaney"
        )
        self.past = np.zeros((count, round(heard * e.rate) - 1600 + e.fft - e.hop), np.float32)
        self.gru = torch.nn.GRU(64, 128, 2, batch_first=True)
        self.linear = torch.nn.Linear(128, len(model.labels))
        self.states = [torch.zeros(2, 1, 128) for _ in range(count)]

    @torch.inference_mode()
    def step(self, indices, chunks):
        x = np.concatenate([self.past[indices], np.stack(chunks)], 1)
        self.past[indices] = x[:, 1600:]
        features = (self.mel(torch.from_numpy(x)).transpose(1, 2)[:, -10:] + 1e-6).log()
        y, state = self.gru(features, torch.cat([self.states[index] for index in indices], 1))
        for row, index in enumerate(indices):
            self.states[index] = state[:, row : row + 1].clone()
        return self.linear(y).softmax(-1).numpy()


class Silero(Queue):
    """silero-vad by its ONNX file, 512 new samples at a time."""

    period = 0.032

    def __init__(self, count, clock, file, tile):
        super().__init__(clock, tile)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        self.past = np.zeros((count, 64), np.float32)
        self.state = np.zeros((2, count, 128), np.float32)

    def step(self, indices, chunks):
        x = np.concatenate([self.past[indices], np.stack(chunks)], 1)
        self.past[indices] = x[:, -64:]
        given = {"input": x, "state": self.state[:, indices], "sr": np.array(16000)}
        _, self.state[:, indices] = self.session.run(None, given)


def silero_file():
    """The file where silero-vad and onnxruntime are installed; else None."""
    found = importlib.util.find_spec("silero_vad")
    if not found or not importlib.util.find_spec("onnxruntime"):
        return None
    return Path(found.submodule_search_locations[0]) / "data" / "silero_vad.onnx"


def trial(make, count, seconds):
    """The waits of so many streams, in the order of the answers, and the share of the time that was computed; None if
    they were too many.
    """
    clock = Time()
    way = make(count, clock)
    size, phases = round(way.period * 16000), np.sort(RNG.uniform(0, way.period, count))
    began = clock() + 0.01
    waits, idle, number, index = [], 0.0, 0, 0
    while number * way.period < seconds + WARM:
        due = began + number * way.period + phases[index]
        while due <= (now := clock()):
            if now - due > LOST:
                return None
            at = (number * size + 997 * index) % (len(SOUND) - size)
            way.arrive(index, SOUND[at : at + size], due)
            index += 1
            if index == count:
                index, number = 0, number + 1
            due = began + number * way.period + phases[index]
        done = way.turn()
        if number * way.period >= WARM:
            waits += done
        if done and done[0] > LOST:
            return None
        if not done:
            ahead = max(0.0, due - clock())
            clock.skipped += ahead
            idle += ahead if number * way.period >= WARM else 0.0
    return np.array(waits), 1 - idle / seconds


def most(make, seconds):
    """The most streams that are served in time, and how."""
    low, high, best = 0, 64, None
    doubling = True
    while high - low > max(1, high // 32):
        count = high if doubling else (low + high) // 2
        found = trial(make, count, seconds)
        if found is not None and np.quantile(found[0], 0.99) <= LIMIT:
            low, best, high = count, found, 2 * count if doubling else high
        else:
            high, doubling = count, False
    return low, best


def one_stream(model, milliseconds):
    """Median and 99th percentile of ``Stream.push`` in microseconds."""
    size = 16 * milliseconds
    stream, taken = Stream(model, milliseconds // 10), []
    for number in range(1050):
        chunk = SOUND[number * 100 : number * 100 + size]
        begun = NOW()
        stream.push(chunk)
        taken.append(NOW() - begun)
    return np.quantile(taken[50:], [0.5, 0.99]) * 1e6


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = [argument for argument in sys.argv[1:] if argument != "--wall"]
    seconds = float(given[0]) if given else 4.0
    model, file = plain_model(), silero_file()
    graph = as_graph(model, 1600)
    ways = {
        f"Rivulet, Scheduler, tiles of {TILE}": lambda n, clock: Ours(n, clock, graph, True),
        "the same, exact=False": lambda n, clock: Ours(n, clock, graph, False),
        "Rivulet, Stream.push in turn": lambda n, clock: Pushed(n, clock, graph),
        "Rivulet, compute=torch, exact=False": lambda n, clock: Ours(n, clock, model, False),
        f"torchaudio and nn.GRU, batches of {TILE}": lambda n, clock: ByHand(n, clock, model, TILE, 0.1),
        "torchaudio and nn.GRU, alone": lambda n, clock: ByHand(n, clock, model, 1, 0.1),
        "the same, the last second anew": lambda n, clock: ByHand(n, clock, model, 1, 1.0),
    }
    if file:
        ways[f"silero-vad ONNX, batches of {TILE}"] = lambda n, clock: Silero(n, clock, file, TILE)
        ways["silero-vad ONNX, alone"] = lambda n, clock: Silero(n, clock, file, 1)
    rows = []
    for name, make in ways.items():
        count, found = most(make, seconds)
        waits, busy = found if found else (np.full(1, np.nan), np.nan)
        figures = [f"{1e3 * value:.1f}" for value in (*np.quantile(waits, [0.5, 0.99]), waits.max())]
        rows.append([name, count, *figures, f"{busy:.2f}", f"{1e6 * busy / count:.0f}"])
        print(*rows[-1], sep="  ", file=sys.stderr)
    if not file:
        rows.append(["silero-vad ONNX", "not installed", *[""] * 5])
    for milliseconds in (20, 100):
        p50, p99 = one_stream(as_graph(model, 16 * milliseconds), milliseconds)
        name = f"one stream, Stream.push of {milliseconds} ms"
        rows.append([name, 1, f"{p50 / 1e3:.3f}", f"{p99 / 1e3:.3f}", "", "", f"{p50 * 1000 / milliseconds:.0f}"])
    note = (
        f"the most streams with p99 <= 100 ms over {seconds:g} s of {NOW.__name__}; {model.parameter_count():,} parameters, one thread, "
        "torch.set_num_threads(1), chunks of 100 ms (silero: 32 ms)"
    )
    columns = ["way", "streams", "p50 ms", "p99 ms", "max ms", "busy", "us per stream and second"]
    report("streams", columns, rows, note)


if __name__ == "__main__":
    main()
