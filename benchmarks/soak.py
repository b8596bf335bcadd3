"""A day of sound through one Stream, as fast as it goes: does memory stay flat, and is hour 24 as good as minute 1?

    nice python benchmarks/soak.py [MODEL.safetensors] [--hours 24] [--chunk 0.2] [--recordings FOLDER]

The recordings (real ones: ../shared/data/streams, or where RIVULET_DATA points) are played one after another, again and
again, in chunks of one size, each pushed as it is. Every ten minutes of the stream it is snapshotted and goes on as the
restored one. Every hour a chunk is NaN, and something is missing: a gap of no whole number of steps, by each policy in
turn. 30 s of lead-in and a clip of 60 s are played from second 30, and again as the last 90 s of the day.

Without MODEL: an untrained one of log-mel and a GRU of the default sizes, normalised as training does; its decoder
opens at the level that a tenth of the answers reaches, so that there are events whose times can be compared. Latency is
that of Stream.push in CPU time of the thread, as others may use the machine, and by the clock on the wall.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from latency import plain_model  # beside this file
from table import report

from pipeline.media.audio import read
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream

DATA = Path(os.environ.get("RIVULET_DATA", ROOT.parent / "shared" / "data")) / "streams"
LEAD, CLIP, FIRST = 30, 60, 30  # seconds
POLICIES = ("reset", "keep", "hold", "zeros")


def resident():
    """MB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def normalise(model, waves):
    """As training does, on all recordings: a band that one of them lacks would else saturate the gates with the others,
    and an untrained GRU would forget in minutes.
    """
    with torch.inference_mode():
        model.standardize.fit(
            model.extractor(torch.from_numpy(wave)[None], model.extractor.initial(1))[0][0] for wave in waves
        )


def levels(model, wave):
    """Settings of a decoder that opens now and then, for a model that has learnt nothing."""
    stream = Stream(model, 50)
    stream.push(wave)
    high, low = np.quantile(stream.posteriors, [0.9, 0.8], axis=0)
    return {
        "threshold": dict(zip(model.labels, high.astype(float))),
        "release": dict(zip(model.labels, low.astype(float))),
    }


class Day:
    """One stream, with its clock kept beside it."""

    def __init__(self, model, settings, chunk, most):
        self.model, self.settings = model, settings
        self.size = round(chunk * model.rate)
        self.stream = Stream(model, max(1, self.size // model.hop), model.decoder(**settings))
        self.cpu, self.wall = (np.full(most, np.nan, np.float32) for _ in range(2))  # in memory from the start
        self.pushes = self.now = self.events = self.warnings = self.snapshots = self.gaps = 0
        self.next = 0  # step
        self.kept = None  # while a list: all that is told

    def push(self, wave):
        """Chunks of one size."""
        stream = self.stream
        for at in range(0, len(wave), self.size):
            chunk = wave[at : at + self.size]
            wall, cpu = time.perf_counter(), time.thread_time()
            events = stream.push(chunk)
            self.cpu[self.pushes] = time.thread_time() - cpu
            self.wall[self.pushes] = time.perf_counter() - wall
            self.pushes += 1
            self.now += len(chunk)
            self.told(events)

    def told(self, events):
        """Nothing that is not finite, and not a sample wrong."""
        stream = self.stream
        assert np.isfinite(stream.posteriors).all()
        assert stream.first == self.next and stream.ticks == self.now, (stream.ticks, self.now)
        self.next += len(stream.posteriors)
        self.events += len(events)
        self.warnings += len(stream.warnings)
        if self.kept is not None:
            self.kept[0].append(stream.posteriors)
            self.kept[1].extend(events)

    def renew(self):
        """Go on as another stream that was told all this one knew."""
        self.stream = Stream.restore(self.model, self.stream.snapshot(), self.model.decoder(**self.settings))
        self.snapshots += 1

    def gap(self, ticks):
        """Something is missing; what a step lacks after it is left out."""
        events = self.stream.gap(ticks, POLICIES[self.gaps % len(POLICIES)])
        self.gaps += 1
        self.now += ticks
        surplus = self.stream.surplus
        assert self.stream.ticks - surplus == self.now
        steps, self.next = self.stream.posteriors, self.stream.steps
        waiting = self.stream.spec.ticks(self.stream.waiting)
        assert np.isfinite(steps).all() and self.next * self.model.hop + waiting == self.stream.ticks
        self.events += len(events)
        if surplus:
            self.stream.push(np.zeros(surplus, np.float32))  # these samples are left out
            self.now += surplus
            self.told([])

    def heard(self, wave):
        """A clip, behind its lead-in: posteriors and events of the clip but for its last second, which may still wait
        for a whole block; relative to the clip's start.
        """
        lead = LEAD * self.model.rate
        self.push(wave[:lead])
        start, step = self.now, self.now // self.model.hop
        self.kept = [], []
        self.push(wave[lead:])
        (posteriors, events), self.kept = self.kept, None
        first = self.next - sum(map(len, posteriors))
        last = (CLIP - 1) * self.model.rate
        own = [(e.label, e.start - start, e.end - start, e.peak - start) for e in events]
        own = [event for event in own if event[1] >= 0 and event[2] < last]
        return np.concatenate(posteriors)[step - first :][: last // self.model.hop], own


def row(day, hours, memory):
    """The hour that ended."""
    count = round(3600 * day.model.rate / day.size)
    cpu, wall = (times[max(0, day.pushes - count) : day.pushes] for times in (day.cpu, day.wall))
    files, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
    figures = [*np.percentile(cpu, [50, 99]), np.percentile(wall, 99)]
    return [f"{hours:.2f}", f"{memory:.1f}", files, threads, *(f"{1e6 * f:.0f}" for f in figures), day.events]


def play(day, wave, seconds):
    """Minute by minute until so many seconds are over: the table's rows, and the memory after ten minutes."""
    rate, rows, early, at, minute = day.model.rate, [], None, 0, 60 * day.model.rate
    end = seconds * rate
    last = -1
    while day.now < end:
        length = min(minute, end - day.now)
        day.push(wave.take(range(at, at + length), mode="wrap"))
        at = (at + length) % len(wave)
        minutes = day.now // minute
        if minutes // 10 > last // 10:
            day.renew()
            if early is None and minutes >= 10:
                early = resident()
                rows.append(row(day, day.now / rate / 3600, early))
        if minutes // 60 > last // 60 and minutes >= 60:
            rows.append(row(day, day.now / rate / 3600, resident()))
            day.gap(int(1.37 * rate) + 77 * len(rows))
            day.push(np.full(day.size, np.nan, np.float32))
        last = minutes
    return rows, early


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--chunk", type=float, default=0.2)
    parser.add_argument("--recordings", type=Path, default=DATA)
    given = parser.parse_args()
    paths = sorted(given.recordings.glob("*.flac"))
    if not paths:
        sys.exit(f"no recordings (*.flac) in {given.recordings}; name a folder: --recordings FOLDER")
    torch.set_num_threads(1)
    model = load(given.model).for_streaming() if given.model else plain_model(1)
    waves = [read(path, model.rate)[0] for path in paths]
    wave = np.concatenate(waves)
    assert len(wave) > (LEAD + CLIP) * model.rate
    settings = {}
    if not given.model:
        normalise(model, waves)
        settings = levels(model, wave[: 120 * model.rate])
    day = Day(model, settings, given.chunk, round(given.hours * 3600 / given.chunk) + 3600)
    began, clip = time.perf_counter(), wave[-(LEAD + CLIP) * model.rate :]
    day.push(wave[: FIRST * model.rate])
    first, first_events = day.heard(clip)
    rows, early = play(day, wave, round(given.hours * 3600) - LEAD - CLIP)
    second, second_events = day.heard(clip)
    memory = resident()
    rows.append(row(day, day.now / model.rate / 3600, memory))
    hour = round(3600 / given.chunk)
    apart = np.abs(first - second).max()
    ratios = [
        np.percentile(t[day.pushes - hour : day.pushes], 99) / np.percentile(t[:hour], 99) for t in (day.cpu, day.wall)
    ]
    note = (
        f"{given.hours:g} h of {len(paths)} recordings in chunks of {given.chunk:g} s, {model.parameter_count():,} parameters, one thread, "
        f"{time.perf_counter() - began:.0f} s; {day.snapshots} snapshots and restores, {day.gaps} gaps, {day.warnings} warnings\n"
        f"memory: {memory - early:+.1f} MB from minute 10 to the end; p99 of a push, last hour / first: {ratios[0]:.2f} in CPU time, {ratios[1]:.2f} on the wall\n"
        f"the same 60-s clip at minute 1 and at the end: posteriors differ by {apart:.1e} at most; events {'the same' if first_events == second_events else 'DIFFERENT'}, "
        f"{len(first_events)} of them, to the sample; clock and steps looked at after each of {day.pushes:,} pushes"
    )
    report("soak", ["hours", "MB", "files", "threads", "p50 us CPU", "p99 us CPU", "p99 us", "events"], rows, note)


if __name__ == "__main__":
    main()
