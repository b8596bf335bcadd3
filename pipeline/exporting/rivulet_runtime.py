"""Runs an exported model, ``model.onnx``, with numpy and onnxruntime alone; copy this file anywhere.

    python rivulet_runtime.py model.onnx FILE.wav     16-bit PCM
    arecord -t raw -f S16_LE -r 16000 | python rivulet_runtime.py model.onnx -
    python rivulet_runtime.py model.onnx mic          needs sounddevice

prints events as lines of JSON, times in seconds. In a program:

    stream = Stream("model.onnx")
    for samples in microphone:  # any number of them, float32 from -1 to 1, stream.model.rate a second
        for event in stream.push(samples): ...
    stream.close()
"""

import base64
import hashlib
import io
import json
import queue
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FORMAT = 1
SEAL_BYTES = 76  # the last ones of the file; 64 of them are a SHA-256 of all before
LOUDEST = 32.0  # times full scale; what is beyond becomes full scale
TINY = np.finfo(np.float32).tiny
TRACKS = "sound", "picture", "present", "series"  # those that the model has; present: which of both are there
TIMES = "start", "end", "peak"
MAX_SYMBOLS = 200  # of a phrase
COUNTERS = "ticks", "skip", "steps", "end", "failing"
Event = dict[str, Any]  # label; start, end and peak in seconds; score


class Model:
    """A graph and its card. Any number of streams may share it."""

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        """ValueError for a file that is not whole, or of another format."""
        data = Path(path).read_bytes()
        if hashlib.sha256(data[:-SEAL_BYTES]).hexdigest().encode() != data[-64:]:
            raise ValueError(f"{path}: not a whole model.onnx of Rivulet: its digest is another; copy it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.card = card = json.loads(self.session.get_modelmeta().custom_metadata_map["rivulet"])
        if card["format"] != FORMAT:
            raise ValueError(f"{path}: format {card['format']}, but this file reads {FORMAT}; take the one beside it")
        inputs = self.session.get_inputs()
        self.names = [one.name for one in inputs]
        self.tracks = [one for one in inputs if one.name in TRACKS]
        spec = card["spec"]
        self.rate: Any = spec["sound"] or (spec["picture"] or spec["series"])["rate"]  # ticks a second
        self.first = [first_state(**state) for state in card["states"]]

    def step(self, tracks: list[Any], state: list[Any]) -> list[Any]:
        """A block of each track ``(1, N, ...)`` and the state before it: posteriors ``(1, T, K)``, the next state."""
        start = [np.zeros((1, 1), np.float32)] * ("start" in self.names)  # 1 would begin anew, whatever the state is
        found: list[Any] = self.session.run(None, dict(zip(self.names, [*tracks, *start, *state], strict=True)))
        return found


class Stream:
    """One microphone, camera or file: samples or pictures in, events out.

    ``posteriors (T, labels)`` are those of the last ``push`` or ``close``: a step for every ``hop`` ticks. ``decoder``
    has the thresholds, which may be changed.
    """

    def __init__(self, model: str | Path | Model) -> None:
        self.model = model = model if isinstance(model, Model) else Model(model)
        self.labels, self.hop, self.block = model.card["labels"], model.card["hop"], model.card["block"]
        clock, settings = (self.labels, self.hop, model.rate), dict(model.card["config"]["decoder"])
        strings = settings.pop("_target_").endswith(".Transcript")
        self.decoder = Transcript(*clock, **settings) if strings else Decoder(*clock, **model.card["events"])
        self.state = model.first
        self.newest = self.waiting = [silence(track, 0) for track in model.tracks]
        self.ticks = self.steps = self.failing = 0  # received; answered; ticks without finite answers, up to now
        self.skip = model.card["delay"]  # steps still to drop: they answer for the time before the start
        self.end: int | None = None  # the number of steps, once known
        self.held = np.zeros(len(self.labels), np.float32)  # the last posteriors that were finite
        self.posteriors = self.held[None][:0]

    def push(self, *tracks: Any) -> list[Event]:
        """Take samples ``(N,)``; or pictures ``(T, H, W, 3)`` uint8 of the model's size and rate; or both, and marks
        ``(T, 2)``: whether there is sound, and a picture; or rows ``(T, C)``, NaN where a value is missing. The events
        that are over by them.

        ValueError for anything else, and once closed.
        """
        if self.end is not None:
            raise ValueError("this stream is closed; begin a new Stream")
        given = [checked(x, track) for x, track in zip(tracks, self.model.tracks, strict=True)]
        if len({len(x) / track.shape[1] for x, track in zip(given, self.model.tracks, strict=True)}) > 1:
            raise ValueError(f"got tracks of {[len(x) for x in given]} steps; expected the same time of each")
        self.ticks += len(given[0])
        self.newest = [x[-1:] for x in given] if len(given[0]) else self.newest
        return self.advance(given)

    def close(self) -> list[Event]:
        """Answer for what is left, followed by silence, or the last picture or row; and end the open events."""
        self.end = -(-self.ticks // self.hop)
        blocks = -(-(self.end - self.steps + self.skip) * self.hop // self.block)
        missing, rest = blocks * self.block - len(self.waiting[0]), []
        for track, newest in zip(self.model.tracks, self.newest, strict=True):
            alone = len(self.model.tracks) == 1 and track.name in ("picture", "series")
            step = newest if alone and len(newest) else silence(track, 1)
            rest.append(np.repeat(step, missing * track.shape[1] // self.block, axis=0))
        return self.advance(rest) + self.decoder.close()

    def advance(self, given: list[Any]) -> list[Event]:
        """Compute all whole blocks."""
        self.waiting = [np.concatenate(pair) for pair in zip(self.waiting, given, strict=True)]
        events, answers = [], [self.posteriors[:0]]
        while len(self.waiting[0]) >= self.block:
            sizes = [track.shape[1] for track in self.model.tracks]
            y = self.answer([x[None, :size] for x, size in zip(self.waiting, sizes, strict=True)])
            self.waiting = [x[size:] for x, size in zip(self.waiting, sizes, strict=True)]
            dropped = min(self.skip, len(y))
            self.skip -= dropped
            y = y[dropped:][: None if self.end is None else self.end - self.steps]
            self.steps += len(y)
            events += self.decoder.decode(y)
            answers.append(y)
        self.posteriors = np.concatenate(answers)
        return events

    def answer(self, block: list[Any]) -> Any:
        """Posteriors ``(T, K)``. Where they or the state are not finite, the state stays and the last good posteriors
        stand; after a second of that they are 0 (not those that are numbers), and the state begins anew.
        """
        y, *state = self.model.step(block, self.state)
        fine = [np.isfinite(new) | (new == first) for new, first in zip(state, self.model.first, strict=True)]
        if np.isfinite(y).all() and all(part.all() for part in fine):
            self.state, self.held, self.failing = state, y[0, -1], 0
            return y[0]
        self.failing += self.block
        if self.failing > self.model.rate:
            self.state = self.model.first
            self.held = self.held if self.model.card["link"] == "linear" else np.zeros_like(self.held)
        return np.repeat(self.held[None], y.shape[1], axis=0)

    def snapshot(self) -> bytes:
        """All that the stream remembers, but for its thresholds."""
        numbers = {"model": self.model.card["identity"]} | {name: getattr(self, name) for name in COUNTERS}
        text = json.dumps(numbers | {"decoder": self.decoder.snapshot()})
        groups = {"state": self.state, "waiting": self.waiting, "newest": self.newest}
        named = {f"{name}_{k}": array for name, group in groups.items() for k, array in enumerate(group)}
        np.savez(file := io.BytesIO(), allow_pickle=False, text=text, held=self.held, **named)
        return file.getvalue() + hashlib.sha256(file.getvalue()).digest()

    @classmethod
    def restore(cls, model: str | Path | Model, data: bytes) -> "Stream":
        """The stream of a snapshot goes on as if nothing had been, bit for bit. ValueError for damaged bytes, or those
        of another model.
        """
        stream = cls(model)
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError("snapshot: damaged, or not of Stream.snapshot(): its digest is another")
        arrays = np.load(io.BytesIO(data), allow_pickle=False)
        numbers = json.loads(str(arrays["text"]))
        if numbers["model"] != stream.model.card["identity"]:
            raise ValueError(f"snapshot: of model {numbers['model']}, but this is {stream.model.card['identity']}")
        for name in COUNTERS:
            setattr(stream, name, numbers[name])
        for name in "state", "waiting", "newest":
            setattr(stream, name, [arrays[f"{name}_{k}"] for k in range(len(getattr(stream, name)))])
        stream.held = arrays["held"]
        stream.decoder.restore(numbers["decoder"])
        return stream


@dataclass
class Decoder:
    """From posteriors to events, each label for itself.

    An event begins when its posterior reaches ``high`` (above 1: never), and ends when it falls below ``low``. It is
    over ``merge`` steps later, unless ``high`` was reached again. Below ``minimum`` steps it is dropped; else the label
    begins no other one within ``refractory`` steps. ``hop`` ticks a step, ``rate`` a second.
    """

    labels: list[str]
    hop: int
    rate: int
    high: Any
    low: Any
    minimum: int
    merge: int
    refractory: int

    def __post_init__(self) -> None:
        self.high, self.low = np.array(self.high, np.float32), np.array(self.low, np.float32)
        self.step = 0
        self.open: dict[int, list[Any]] = {}  # label: first step, best score, its step, end or None
        self.free: dict[int, int] = {}  # label: step from which another may begin

    def decode(self, posteriors: Any) -> list[Event]:
        """The events that are over within some steps ``(T, K)``."""
        found = []
        for row in posteriors:
            for k in sorted({*self.open, *np.flatnonzero(row >= self.high).tolist()}):
                found += self.follow(k, float(row[k]))
            self.step += 1
        return found

    def follow(self, k: int, score: float) -> list[Event]:
        """One label, one step on."""
        if k not in self.open:
            if self.step >= self.free.get(k, 0):
                self.open[k] = [self.step, score, self.step, None]
            return []
        start, best, peak, end = self.open[k]
        if end is None and score < self.low[k]:
            end = self.step
        elif end is None or score >= self.high[k]:
            end = None
            best, peak = (score, self.step) if score > best else (best, peak)
        self.open[k] = [start, best, peak, end]
        return self.finish(k, end) if end is not None and self.step + 1 - end > self.merge else []

    def finish(self, k: int, end: int) -> list[Event]:
        """The event that is over."""
        start, best, peak, _ = self.open.pop(k)
        if end - start < self.minimum:
            return []
        self.free[k] = end + self.refractory
        return [event_of(self.labels[k], (start, end, peak), best, self)]

    def close(self) -> list[Event]:
        """End the open events."""
        ends = sorted((self.step if now[3] is None else now[3], k) for k, now in self.open.items())
        return [event for end, k in ends for event in self.finish(k, end)]

    def snapshot(self) -> list[Any]:
        return [self.step, [*self.open.items()], [*self.free.items()]]

    def restore(self, memory: list[Any]) -> None:
        self.step, self.open, self.free = memory[0], dict(memory[1]), dict(memory[2])


class Transcript:
    """From posteriors to strings: each step says its best symbol, if that reaches the ``threshold``.

    A symbol is over when a step does not say it. A phrase is the symbols before a ``pause`` in seconds; a list of
    phrases is not looked through.
    """

    def __init__(
        self,
        labels: list[str],
        hop: int,
        rate: int,
        threshold: float,
        pause: float,
        tell: str,
        background: list[str] | None = None,
        **unused: Any,
    ) -> None:
        """``hop`` ticks a step, ``rate`` a second; the rest as in the model's settings."""
        self.labels, self.hop, self.rate = labels, hop, rate
        self.level, self.tell, self.pause = np.float32(threshold), tell, max(1, round(pause * rate) // hop)
        self.quiet, self.blank = background or [], len(labels) - 1
        self.step = self.heard = 0
        self.run: list[Any] | None = None  # column, first step, best score, its step
        self.phrase: list[list[Any]] = []  # label, first step, end, best score, its step

    def decode(self, posteriors: Any) -> list[Event]:
        """The symbols and phrases that are over within some steps ``(T, K)``."""
        events = []
        for row in posteriors:
            best = int(row[: self.blank].argmax())
            best = best if row[best] >= self.level else self.blank
            events += self.end_run() if self.run and self.run[0] != best else []
            events += self.end_phrase() if self.step - self.heard >= self.pause else []
            if best != self.blank:
                self.run = self.run or [best, self.step, -1.0, 0]
                if row[best] > self.run[2]:
                    self.run[2:] = float(row[best]), self.step
                self.heard = self.step + 1
            self.step += 1
        return events

    def end_run(self) -> list[Event]:
        """The symbol that is over."""
        column, start, score, peak = self.run or [self.blank, 0, -1.0, 0]
        self.run = None
        if column == self.blank or self.labels[column] in self.quiet:
            return []
        self.phrase.append([self.labels[column], start, self.step, score, peak])
        told = self.told("tokens", self.phrase[-1:])
        return told + (self.end_phrase() if len(self.phrase) >= MAX_SYMBOLS else [])

    def end_phrase(self) -> list[Event]:
        """The phrase that is over."""
        found, self.phrase, self.heard = self.phrase, [], self.step
        return self.told("phrases", found)

    def told(self, kind: str, symbols: list[list[Any]]) -> list[Event]:
        """Symbols as one event, if that is to be told."""
        if not symbols or self.tell not in (kind, "both"):
            return []
        *_, score, peak = min(symbols, key=lambda one: one[3])
        label = " ".join(symbol[0] for symbol in symbols)
        return [event_of(label, (symbols[0][1], symbols[-1][2], peak), score, self)]

    def close(self) -> list[Event]:
        """End the symbol and the phrase."""
        return self.end_run() + self.end_phrase()

    def snapshot(self) -> list[Any]:
        return [self.step, self.heard, self.run, self.phrase]

    def restore(self, memory: list[Any]) -> None:
        self.step, self.heard, self.run, self.phrase = memory


def event_of(label: str, steps: tuple[int, int, int], score: float, decoder: Decoder | Transcript) -> Event:
    """An event from its first step, end and peak."""
    seconds = (round(step * decoder.hop / decoder.rate, 3) for step in steps)
    return {"label": label, **dict(zip(TIMES, seconds, strict=True)), "score": round(score, 4)}


def first_state(shape: list[int], type: str, initial: float | str) -> Any:
    """A state before the first tick, ``(1, *shape)``: one number for all of it, or base64 of all numbers."""
    if initial in ("inf", "-inf") or not isinstance(initial, str):
        return np.full((1, *shape), initial, type)
    return np.frombuffer(base64.b64decode(initial), type).reshape(1, *shape)


def silence(track: Any, steps: int) -> Any:
    """Zeros for a track."""
    return np.zeros((steps, *track.shape[2:]), np.uint8 if track.type == "tensor(uint8)" else np.float32)


def checked(x: Any, track: Any) -> Any:
    """Steps as the graph takes them. Samples that are no numbers become 0, as do denormal ones, which are slow; in a
    series infinite numbers are missing ones.
    """
    x, like = np.asarray(x), silence(track, 0)
    fits = x.dtype.kind == "f" if like.dtype.kind == "f" else x.dtype == like.dtype
    if not fits or x.ndim != like.ndim or x.shape[1:] != like.shape[1:]:
        expected = f"{like.dtype} (N{''.join(f', {size}' for size in like.shape[1:])})"
        raise ValueError(f"got {track.name} as {x.dtype} {x.shape}; expected {expected}, sound from -1 to 1")
    if like.dtype.kind != "f":
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if track.name == "series":
        return np.where(np.isinf(x), np.float32(np.nan), x)
    x[~np.isfinite(x) | (np.abs(x) < TINY)] = 0
    return x.clip(0, 1) if track.name == "present" else np.where(np.abs(x) > LOUDEST, np.sign(x), x)


def sound(source: str, rate: int) -> Iterator[Any]:
    """Samples of a wav file, of ``-`` (standard input, 16-bit PCM) or of ``mic``."""
    if source == "-":
        while data := sys.stdin.buffer.read(rate // 10 * 2):
            yield to_float(data[: len(data) // 2 * 2])
    elif source == "mic":
        import sounddevice

        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with sounddevice.InputStream(rate, channels=1, callback=lambda data, *_: heard.put(data[:, 0].copy())):
            while True:
                yield heard.get()
    else:
        with wave.open(source) as file:
            if file.getsampwidth() != 2 or file.getframerate() != rate:
                raise ValueError(
                    f"{source}: {8 * file.getsampwidth()} bits, {file.getframerate()} Hz; expected 16 bits, {rate} Hz: "
                    f"ffmpeg -i {source} -c:a pcm_s16le -ar {rate} NEW.wav"
                )
            while data := file.readframes(rate):
                yield to_float(data).reshape(-1, file.getnchannels()).mean(1)


def to_float(data: bytes) -> Any:
    """16-bit PCM as samples."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        stream = Stream(arguments[0])
        for samples in sound(arguments[1], stream.model.rate):
            for event in stream.push(samples):
                print(json.dumps(event), flush=True)
    except KeyboardInterrupt:
        pass
    except (ValueError, OSError, EOFError, wave.Error, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for event in stream.close():
        print(json.dumps(event), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
