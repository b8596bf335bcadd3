"""Scheduler: who shares a batch changes no bit; who waited longest is served first; overload is told, and is survived."""

import functools
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict

import numpy as np
import pytest
import torch
from conftest import BOTH, PICTURES, ROOT, listen, lively_model, noise, small_model, voiced

from pipeline.decoders.decoder import Decoder
from pipeline.layers.stage import Stage, tree
from pipeline.streaming import state_batch
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.stream import Stream

BLOCK = 4


class Clock:
    """A time that passes only when it is told to; a model's every call takes ``cost`` seconds of it."""

    def __init__(self, model=None, cost=0.0):
        self.now = 0.0
        if model is not None:
            model.register_forward_hook(lambda *_: self.pass_by(cost))

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


def material(model, ticks, seed):
    """A chunk of what the model takes."""
    if model.spec.picture is None:
        return (noise(ticks, seed),)
    images = np.random.default_rng(seed).integers(0, 256, (ticks // model.spec.grain, 8, 12, 3), np.uint8)
    if not model.spec.both:
        return (images,)
    return noise(ticks, seed), images, np.ones((len(images), 2), np.float32)


def collect(heard, answers):
    for answer in answers:
        heard[answer.stream].append(answer)


def told(answers):
    """All posteriors, events and gaps of a stream."""
    gaps = [(a.at, a.gap) for a in answers if a.gap]
    return np.concatenate([a.posteriors for a in answers]), [e for a in answers for e in a.events], gaps


def answer_all(scheduler, heard):
    """Turns until nothing waits."""
    while answers := scheduler.turn():
        collect(heard, answers)
    return heard


@functools.cache
def quiet(model, tile):
    """A scheduler without other streams."""
    return Scheduler(model, BLOCK, tile=tile)


def alone(model, parts, tile=64):
    """What a stream is told if nobody else is there: all at once, then closed."""
    scheduler, stream, heard = quiet(model, tile), Stream(model, BLOCK), defaultdict(list)
    scheduler.join(stream)
    scheduler.feed(stream, parts)
    collect(heard, scheduler.close(stream))
    return told(heard[stream])


def assert_as_alone(model, heard, streams, blocks, tile=64):
    """Each was told the same bits as if it had been alone with its noise."""
    for seed, stream in streams.items():
        own = alone(model, noise(blocks * stream.size, seed), tile)[0]
        assert np.array_equal(told(heard[stream])[0], own[: blocks * BLOCK])


HEARING = {
    "gru": ["head.window=0.3", "encoder.layers=2"],
    "lstm, delayed": ["cell=lstm", "head.delay=0.06", "head=max", "head.window=0.1"],
    "convolutions": ["encoder=conv_recurrent"],
    "gate": ["gate=voice", "gate.threshold=0.5", "gate.least=0.03", "gate.back=0.1"],
}
SEEING = {
    "pictures": [*PICTURES, "cell=conv_gru", "head.window=0.4"], "both": [*BOTH, "extractor.size=5"],
}  # fmt: skip
LIVELY = ["decoder.threshold=0.34", "decoder.release=0.33", "decoder.minimum=0"]


def made(name):
    if name in HEARING:
        model = small_model(*HEARING[name], *LIVELY)
        return voiced(model).for_streaming() if model.gate else model
    return lively_model(*SEEING[name], *LIVELY, times=1.0)


FAST = ["gate", "both"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.long]) for name in [*HEARING, *SEEING]
])  # fmt: skip
def test_64_streams_batched_at_random_equal_each_alone_to_the_bit(name):
    """They join, stall and leave at random, and are fed chunks of random lengths."""
    model = made(name)
    rng = np.random.default_rng(1)
    unit = Stream(model, BLOCK).size
    parts = [material(model, int(rng.integers(1, 8 * unit)) // model.grain * model.grain, seed) for seed in range(64)]
    scheduler, heard, at = Scheduler(model, BLOCK, tile=16), defaultdict(list), [0] * 64
    streams = [Stream(model, BLOCK) for _ in parts]
    batches = set()
    while len(at) > at.count(None):
        for index in rng.permutation(64)[: rng.integers(1, 65)]:
            if at[index] is None:
                continue
            stream, whole = streams[index], parts[index]
            if stream not in scheduler.streams:
                scheduler.join(stream)
            size = min(int(rng.integers(0, 3 * unit)) // model.grain * model.grain, len(whole[0]) - at[index])
            scheduler.feed(stream, model.spec.cut(model.spec.cut(whole, at[index])[1], size)[0])
            at[index] += size
            if at[index] == len(whole[0]):
                collect(heard, scheduler.close(stream))
                at[index] = None
            elif rng.random() < 0.1:
                scheduler.leave(stream)
        for _ in range(rng.integers(0, 4)):
            answers = scheduler.turn()
            batches.add(len(answers))
            collect(heard, answers)
    assert len(batches) > 8 or scheduler.batch.tile == 1  # or this would prove little
    for index, stream in enumerate(streams):
        posteriors, events, gaps = told(heard[stream])
        own, own_events, _ = alone(model, parts[index], 16)
        assert np.array_equal(posteriors, own) and events == own_events and not gaps
        assert stream.steps == len(own)
        one, one_events, _ = listen(Stream(model, BLOCK), [parts[index]])
        assert np.abs(own - one).max(initial=0) <= 1e-6 and len(events) == len(one_events)
    assert any(told(heard[stream])[1] for stream in streams)


PROCESSORS = [
    {"MKL_CBWR": "AVX2"}, {"ATEN_CPU_CAPABILITY": "avx2"}, {"ATEN_CPU_CAPABILITY": "default"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"}, {},
]  # fmt: skip
EXACT = "to_the_bit or row_by_row or takes_its_state or same_bits or change_no_bit or bit_for_bit or change_nothing"


@pytest.mark.parametrize(("setting", "threads", "names"), [
    (PROCESSORS[0], 1, "to_the_bit and both"),
    *(pytest.param(setting, threads, EXACT, marks=pytest.mark.long) for setting in PROCESSORS for threads in (1, 2)),
], ids=str)  # fmt: skip
def test_bits_hold_with_the_kernels_of_other_processors(setting, threads, names):
    """Each makes the libraries choose other kernels, which add up in other orders."""
    files = [ROOT / "tests" / f"test_{name}.py" for name in ("scheduler", "stream", "batch", "snapshot")]
    files = files if names == EXACT else files[:1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    env = os.environ | setting | {"RIVULET_TEST_THREADS": str(threads)}
    chosen = ["-k", f"({names}) and not other_processors"]
    done = subprocess.run([*command, *chosen], env=env, cwd=ROOT, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stdout.decode()[-3000:]


def assert_same(state, other):
    assert all(np.array_equal(one, two) for one, two in zip(state, other, strict=True))


def ready(scheduler, count, blocks=1, seed=0):
    """Streams that have joined, each with so many blocks waiting."""
    streams = [Stream(scheduler.model, BLOCK) for _ in range(count)]
    for number, stream in enumerate(streams, seed):
        scheduler.join(stream)
        if blocks:
            scheduler.feed(stream, noise(blocks * scheduler.size, number))
    return streams


def served(scheduler, streams):
    """Whose turn it was, until nothing waits."""
    found = []
    while answers := scheduler.turn():
        found.append([streams.index(answer.stream) for answer in answers])
    return found


def test_the_oldest_block_comes_first_then_who_joined_first():
    clock = Clock()
    scheduler = Scheduler(small_model(), BLOCK, tile=2, clock=clock)
    streams = ready(scheduler, 5, blocks=0)
    for index, arrived in [(3, 1.0), (1, 2.0), (4, 1.0), (0, 3.0), (2, 0.5), (3, 1.5), (3, 2.0), (2, 9.0)]:
        scheduler.feed(streams[index], noise(scheduler.size), arrived)
    clock.now = 10.0
    assert scheduler.behind == 9.5
    assert served(scheduler, streams) == [[2, 3], [4, 3], [1, 3], [0, 2]]
    assert scheduler.behind == 0.0 and scheduler.turn() == []


def test_the_queue_is_in_order_whatever_came_between():
    """Chunks of any length that are told late, gaps, streams that leave and join again: beside a sort of all of them."""
    rng, model = np.random.default_rng(3), small_model()
    scheduler, unit = Scheduler(model, BLOCK, tile=4, clock=Clock()), Stream(model, BLOCK).size
    streams = ready(scheduler, 9, blocks=0)
    sizes = []
    for _ in range(400):
        stream, what = streams[rng.integers(9)], rng.random()
        if stream not in scheduler.streams:
            scheduler.join(stream)
        elif what < 0.7:
            scheduler.feed(stream, noise(int(rng.integers(0, 2 * unit))), float(rng.integers(9)))
        elif what < 0.75:
            scheduler.gap(stream, int(rng.integers(unit)), "keep")
        elif what < 0.8:
            scheduler.leave(stream)
        else:
            entries = [entry for entry in scheduler.streams.values() if entry.arrived]
            oldest = sorted(entries, key=lambda entry: entry.arrived[0])[:4]
            assert [answer.stream for answer in scheduler.turn()] == [entry.stream for entry in oldest]
            sizes.append(len(oldest))
    assert min(sizes) < 4 and sizes.count(4) > 20


class Loudest(Decoder):
    """Remembers what reaches no threshold, too."""

    most = 0.0

    def decode(self, posteriors):
        self.most = max(self.most, float(posteriors.max(initial=0.0)))
        return super().decode(posteriors)


@pytest.mark.parametrize("kind", [Decoder, Loudest])
def test_blocks_that_reach_no_threshold_are_passed_over_and_decoders_know_no_difference(kind):
    """Thresholds among the scores, one for each label, others for each stream: beside decoders of the answers alone."""
    model, rng = small_model(), np.random.default_rng(4)
    names = model.labels, model.hop, model.rate
    high = [dict(zip(names[0], row, strict=True)) for row in rng.uniform(0.3, 0.5, (24, len(names[0]))).tolist()]
    low = [{label: 0.99 * level for label, level in row.items()} for row in high]
    made = [[kind(*names, *row, minimum=0.0) for row in zip(high, low, strict=True)] for _ in "ab"]
    scheduler, heard, passed = Scheduler(model, BLOCK, tile=8), defaultdict(list), []
    streams = [Stream(model, BLOCK, decoder) for decoder in made[0]]
    for stream in streams:
        scheduler.join(stream)
    for number in range(40):
        for stream in streams:
            wave = noise(scheduler.size, int(rng.integers(1000))) * float(rng.choice([1e-3, 1.0]))
            scheduler.feed(stream, wave if number % 9 else wave * np.float32(np.nan))
        answer_all(scheduler, heard)
    for stream, other in zip(streams, made[1], strict=True):
        for answer in heard[stream]:
            passed.append(not other.open and not (answer.posteriors >= other.high).any())
            assert other.decode(answer.posteriors) == answer.events
        assert stream.decoder.snapshot() == other.snapshot() and stream.decoder.open == other.open
        assert kind is Decoder or stream.decoder.most == other.most > 0
    assert 0.1 < np.mean(passed) < 0.9


def test_a_block_arrives_with_its_last_sample():
    clock = Clock()
    scheduler = Scheduler(small_model(), BLOCK, clock=clock)
    (stream,) = ready(scheduler, 1, blocks=0)
    for arrived, share in [(1.0, 0.5), (2.0, 0.25), (3.0, 0.75), (4.0, 1.6)]:
        scheduler.feed(stream, noise(round(share * scheduler.size)), arrived)
    clock.now = 5.0
    waits = [answer.waited for answer in answer_all(scheduler, defaultdict(list))[stream]]
    assert waits == [2.0, 1.0, 1.0]


def test_a_flood_and_a_stall_cost_the_others_nothing():
    """One stream brings a hundred blocks at once, one brings half a block and no more; the others wait for a turn."""
    model = small_model()
    clock = Clock(model, 0.01)
    scheduler = Scheduler(model, BLOCK, tile=4, clock=clock)
    flood, stalled, *others = streams = ready(scheduler, 5, blocks=0)
    clock.now, heard = 0.0, defaultdict(list)
    scheduler.feed(flood, noise(100 * scheduler.size))
    scheduler.feed(stalled, noise(scheduler.size // 2))
    for _ in range(20):
        for stream in others:
            scheduler.feed(stream, noise(scheduler.size))
        collect(heard, scheduler.turn())
    assert all(answer.waited == pytest.approx(0.01) for stream in others for answer in heard[stream])
    assert [len(heard[stream]) for stream in streams] == [20, 0, 20, 20, 20]


def test_a_stream_that_leaves_takes_its_state_along():
    model = small_model("head.window=0.3")
    wave = noise(30 * Stream(model, BLOCK).size + 77, 5)
    first, second = Scheduler(model, BLOCK, tile=8), Scheduler(model, BLOCK, tile=8)
    stream, heard = Stream(model, BLOCK), defaultdict(list)
    ready(first, 3, 20)
    first.join(stream)
    first.feed(stream, wave[: 9 * first.size + 5])
    for _ in range(6):
        collect(heard, first.turn())
    data = first.snapshot(stream)
    first.leave(stream)
    assert stream.snapshot() == data
    held = stream.state
    copy = [array.copy() for array in held]
    ready(first, 1, 1)  # somebody else gets its row
    answer_all(first, heard)
    ready(second, 2, 20)
    second.join(stream)  # with three blocks that wait
    second.feed(stream, wave[9 * first.size + 5 :])
    collect(answer_all(second, heard), second.close(stream))
    assert np.array_equal(told(heard[stream])[0], alone(model, wave, 8)[0])
    assert_same(held, copy)  # a value: no later step changes it
    with pytest.raises(ValueError, match="join it first"):
        second.feed(stream, wave)


def test_the_state_can_be_read_and_set_meanwhile_and_rows_are_added():
    model = small_model()
    scheduler = Scheduler(model, BLOCK, tile=16)
    streams = ready(scheduler, 150, 3)
    served(scheduler, streams)
    own = Scheduler(model, BLOCK, tile=16)
    (stream,) = ready(own, 1, 3, seed=140)
    served(own, [stream])
    assert_same(streams[140].state, stream.state)
    held = tuple(array.copy() for array in streams[3].state)
    scheduler.feed(streams[3], noise(scheduler.size, 8))
    (first,) = scheduler.turn()
    streams[3].state = held
    scheduler.feed(streams[3], noise(scheduler.size, 8))
    (second,) = scheduler.turn()
    assert np.array_equal(first.posteriors, second.posteriors)


def test_a_gap_is_answered_after_what_waits():
    model = small_model("head.delay=0.06", *LIVELY)
    wave = noise(40 * model.hop * BLOCK)
    for how in ("reset", "keep", "hold", "zeros"):
        found = []
        for others in (0, 9):
            scheduler, heard = Scheduler(model, BLOCK, tile=8), defaultdict(list)
            ready(scheduler, others, 3)
            (stream,) = ready(scheduler, 1, 0)
            scheduler.feed(stream, wave[:5000])
            for _ in range(others):
                collect(heard, scheduler.turn())
            collect(heard, scheduler.gap(stream, 12345, how))
            scheduler.feed(stream, wave[5000:])
            collect(heard, scheduler.close(stream))
            found.append(told(heard[stream]))
        assert np.array_equal(found[0][0], found[1][0]) and found[0][1:] == found[1][1:]
        plain = Stream(model, BLOCK)
        events = plain.push(wave[:5000]) + plain.gap(12345, how) + plain.push(wave[5000:]) + plain.close()
        assert [(e.label, e.start, e.end) for e in events] == [(e.label, e.start, e.end) for e in found[0][1]]
        assert events


def overloaded(seconds, **settings):
    """Twelve streams, of which four calls a block's time can serve eight, for so long; then two of them go on."""
    model = small_model(*settings.pop("model", []))
    block = BLOCK * model.hop / model.rate
    clock = Clock(model, block / 4)
    scheduler = Scheduler(model, BLOCK, tile=2, clock=clock, **settings)
    clock.now = 0.0
    streams, heard, behind = ready(scheduler, 12, blocks=0), defaultdict(list), []
    due = 0.0
    for number in range(round(2 * seconds / block)):
        for index, stream in enumerate(streams):
            if number < seconds / block or index < 2:
                scheduler.feed(stream, noise(scheduler.size, index), due)
        due += block
        while clock.now < due and (answers := scheduler.turn()):
            collect(heard, answers)
        clock.now = max(clock.now, due)
        behind.append(scheduler.behind)
    answer_all(scheduler, heard)
    return scheduler, streams, heard, np.array(behind)


def longest_wait(heard):
    return max(answer.waited for answers in heard.values() for answer in answers if not answer.gap)


def test_overload_that_is_kept_is_answered_late_and_all_of_it():
    scheduler, streams, heard, behind = overloaded(2.0, overload="keep")
    half = len(behind) // 2
    assert behind[half - 1] == pytest.approx(2.0 / 3, abs=0.1)  # a third of what came waits
    assert scheduler.load == pytest.approx(1.5)
    assert (behind[-5:] < 0.05).all()  # it has recovered
    assert longest_wait(heard) == pytest.approx(1.0, abs=0.1)  # of the last of them
    for index, stream in enumerate(streams):
        assert not told(heard[stream])[2] and stream.steps == BLOCK * (len(behind) if index < 2 else half)


@pytest.mark.parametrize("how", ["keep", "reset"])
@pytest.mark.parametrize("more", [[], ["head.delay=0.06"]])
def test_overload_that_is_dropped_is_bounded_and_told(how, more):
    scheduler, streams, heard, behind = overloaded(3.0, overload="drop", patience=0.2, gap=how, model=[*more, *LIVELY])
    block = BLOCK * scheduler.model.hop / scheduler.model.rate
    half = len(behind) // 2
    assert behind.max() <= 0.2 + 2 * block and longest_wait(heard) <= 0.2 + 2 * block
    assert (behind[half + round(0.3 / block) :] < 2 * block).all()  # it has recovered
    lost = []
    for index, stream in enumerate(streams):
        blocks = len(behind) if index < 2 else half
        assert stream.ticks == blocks * scheduler.size
        next_step, passed = 0, 0
        for answer in heard[stream]:
            assert answer.first >= next_step or not len(answer.posteriors)
            next_step = answer.first + len(answer.posteriors)
            if answer.gap:
                assert answer.gap.why == "behind" and answer.gap.how == how and answer.at % scheduler.size == 0
                passed += answer.gap.ticks
        lost.append(passed / stream.ticks)
        answered = sum(len(a.posteriors) for a in heard[stream])
        late = scheduler.model.delay * (1 + sum(1 for a in heard[stream] if a.gap))
        assert abs(answered + passed // scheduler.model.hop - BLOCK * blocks) <= late
        assert 0 <= BLOCK * blocks - stream.steps <= scheduler.model.delay
        scheduler.close(stream)
        assert stream.steps == stream.decoder.step == BLOCK * blocks
    assert 0.2 < np.mean(lost[2:]) < 0.45 and np.ptp(lost[2:]) < 0.15  # a third had to go; no stream pays for another


def test_after_a_gap_that_reset_a_stream_it_answers_as_a_new_one():
    clock = Clock()
    model = small_model("head.window=0.3")
    scheduler = Scheduler(model, BLOCK, overload="drop", patience=1.0, gap="reset", clock=clock)
    (stream,) = ready(scheduler, 1, 4)
    scheduler.turn()
    clock.now = 0.9
    scheduler.feed(stream, noise(2 * scheduler.size, 7))
    clock.now = 1.2
    passed, first = scheduler.turn()
    assert passed.gap.ticks == 3 * scheduler.size and passed.at == scheduler.size and first.first == 4 * BLOCK
    (second,) = scheduler.turn()
    own = alone(model, noise(2 * scheduler.size, 7))[0]
    assert np.array_equal(np.concatenate([first.posteriors, second.posteriors]), own)


def test_who_was_answered_out_of_turn_queues_again_from_the_back():
    scheduler = Scheduler(small_model(), BLOCK, tile=1, clock=Clock())
    early, late = streams = ready(scheduler, 2, 0)
    scheduler.feed(early, noise(scheduler.size), 1.0)
    scheduler.gap(early, 0, "keep")
    scheduler.feed(late, noise(scheduler.size), 2.0)
    scheduler.feed(early, noise(scheduler.size), 3.0)
    assert served(scheduler, streams) == [[1], [0]]


@pytest.mark.parametrize(("poison", "more"), [
    (torch.nan, ["head.window=0.3"]), (torch.inf, ["head=max"]), (-torch.inf, ["head.window=0.3"]),
])  # fmt: skip
def test_a_state_that_is_not_finite_hurts_nobody_else_and_heals(poison, more):
    model = small_model(*more)
    scheduler, heard = Scheduler(model, BLOCK), defaultdict(list)
    streams = ready(scheduler, 5, 6)
    sick = streams[2]
    collect(heard, scheduler.turn())
    sick.state = tuple(array + np.float32(poison) if array.dtype.kind == "f" else array for array in sick.state)
    answer_all(scheduler, heard)
    assert [[row["code"] for row in a.warnings] for a in heard[sick]] == [[], ["not_computed"], [], [], [], []]
    assert not heard[sick][1].posteriors.any() and sick.steps == 6 * BLOCK and not sick.warnings
    anew = alone(model, noise(6 * scheduler.size, 2)[2 * scheduler.size :])[0]
    assert np.array_equal(told(heard[sick][2:])[0], anew[: 4 * BLOCK])
    assert_as_alone(model, heard, {index: streams[index] for index in (0, 1, 3, 4)}, 6)


@pytest.mark.parametrize("where", ["answer", "state"])
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(where):
    model = small_model("head.window=0.3")
    scheduler, heard = Scheduler(model, BLOCK), defaultdict(list)
    streams, sick = ready(scheduler, 3, 3), 1
    before = scheduler.turn()
    held = [array.copy() for array in streams[sick].state]

    def spoiled(tensor):
        tensor = tensor.clone()
        tensor[sick] = torch.nan if tensor.is_floating_point() else tensor[sick]
        return tensor

    def spoil(module, given, answer):
        y, state = answer
        return (spoiled(y), state) if where == "answer" else (y, tree(spoiled, state))

    hook = model.register_forward_hook(spoil)
    after = scheduler.turn()
    hook.remove()
    assert np.array_equal(after[sick].posteriors, np.repeat(before[sick].posteriors[-1:], BLOCK, 0))
    assert_same(streams[sick].state, held)
    assert [len(answer.warnings) for answer in after] == [0, 1, 0]
    collect(heard, [*before, *after, *scheduler.turn()])
    assert_as_alone(model, heard, {row: streams[row] for row in (0, 2)}, 3)


def test_what_is_no_sound_is_told_with_the_answer_of_its_block():
    scheduler = Scheduler(small_model(), BLOCK)
    (stream,) = ready(scheduler, 1, 0)
    wave = noise(3 * scheduler.size)
    wave[scheduler.size + 7] = np.nan
    scheduler.feed(stream, wave)
    codes = []
    while answers := scheduler.turn():
        codes += [[row["code"] for row in answer.warnings] for answer in answers]
        scheduler.feed(stream, noise(1))  # which clears what the stream itself has to tell
    assert codes == [[], ["not_finite"], []]


def test_threads_may_feed_while_one_computes():
    model = small_model()
    scheduler, heard = Scheduler(model, BLOCK, tile=8), defaultdict(list)
    streams = ready(scheduler, 8, 0)
    waves = [noise(40 * scheduler.size, seed) for seed in range(8)]

    def bring(index):
        for begin in range(0, len(waves[index]), 333):
            scheduler.feed(streams[index], waves[index][begin : begin + 333])

    threads = [threading.Thread(target=bring, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or scheduler.behind:
        if scheduler.wait(0.01):
            collect(heard, scheduler.turn())
    assert_as_alone(model, answer_all(scheduler, heard), dict(enumerate(streams)), 40, 8)
    assert not scheduler.wait(0.0) and sum(map(len, heard.values())) == 320


class Neighbours(Stage):
    """What must not be: posteriors that depend on the other rows, on how many there are, or on which row it is."""

    def __init__(self, shape, how):
        super().__init__()
        self.in_shape = self.out_shape = shape
        self.how = how

    def forward(self, x, state):
        y, few = x.softmax(-1), len(x) < 8
        some = {
            "others": x.mean(0) * torch.ones_like(y),
            "count": torch.full_like(y, few),
            "count, some rows": few * ((1e4 * x[:, :1, :1]).frac().abs() < 0.15) * torch.ones_like(y),
            "the last row": few * (torch.arange(len(x)) == len(x) - 1)[:, None, None] * torch.ones_like(y),
        }
        return y * (1 + 2**-20 * some[self.how]), state


@pytest.mark.parametrize("how", ["others", "count", "count, some rows", "the last row"])
def test_a_model_whose_rows_depend_on_each_other_is_computed_row_by_row(how):
    model = small_model()
    model.smoothing = Neighbours((3,), how)
    states = Scheduler(model, BLOCK, tile=32).batch
    assert states.sizes == [1] or min(states.sizes) >= 8
    scheduler = Scheduler(model, BLOCK, tile=32)
    streams = ready(scheduler, 13, 3)
    assert_as_alone(model, answer_all(scheduler, defaultdict(list)), dict(enumerate(streams)), 3, 32)
    assert Scheduler(model, BLOCK, tile=3, exact=False).batch.sizes == [1, 2, 3]


def test_batches_of_any_size_are_near():
    model = small_model()
    scheduler = Scheduler(model, BLOCK, exact=False)
    streams = ready(scheduler, 13, 5)
    heard = answer_all(scheduler, defaultdict(list))
    for index, stream in enumerate(streams):
        own = listen(Stream(model, BLOCK), [noise(5 * scheduler.size, index)])[0]
        assert np.abs(told(heard[stream])[0] - own).max() <= 1e-6


def test_what_does_not_belong_is_refused():
    model = small_model()
    scheduler = Scheduler(model, BLOCK)
    stream = Stream(model, BLOCK)
    scheduler.join(stream)
    for wrong in (Stream(model, BLOCK + 1), Stream(small_model(), BLOCK)):
        with pytest.raises(ValueError, match="the same model"):
            scheduler.join(wrong)
    with pytest.raises(ValueError, match="already"):
        scheduler.join(stream)
    with pytest.raises(ValueError, match="join it first"):
        scheduler.close(Stream(model, BLOCK))
    for settings in ({"tile": 0}, {"patience": 0.0}):
        with pytest.raises(ValueError, match="expected at least 1 row, and more than 0 seconds"):
            Scheduler(model, BLOCK, **settings)


@pytest.mark.parametrize("how", ["close", "gap"])
def test_a_stream_can_be_ended_while_another_thread_feeds_it(how):
    scheduler, stop = Scheduler(small_model(), BLOCK), threading.Event()
    (stream,) = ready(scheduler, 1, 3)
    block, refused = noise(scheduler.size), []

    def bring():
        while not stop.is_set():
            try:
                scheduler.feed(stream, block)
            except ValueError as error:
                refused.append(str(error))
                return

    thread = threading.Thread(target=bring)
    ending = threading.Thread(
        target=scheduler.close if how == "close" else lambda _: scheduler.gap(stream, 0), args=[stream], daemon=True
    )
    thread.start()
    ending.start()
    ending.join(20)
    ended = not ending.is_alive()
    stop.set()
    thread.join()
    assert ended and (how == "gap" or "takes no part" in refused[0])


def test_input_that_comes_while_a_batch_is_computed_changes_no_bit():
    model, waves = lively_model(), [noise(8000 + 700 * seed, seed) for seed in range(5)]

    def heard(waves, beside):
        scheduler, streams, found = Scheduler(model, 5, tile=4), [Stream(model, 5) for _ in waves], defaultdict(list)
        for stream in streams:
            scheduler.join(stream)

        def feed():
            for number, wave in enumerate(waves):
                scheduler.feed(streams[number], wave[:1100])
                waves[number] = wave[1100:]

        while any(map(len, waves)):
            feed()
            collect(found, scheduler.turn(feed if beside else None))
        for stream in streams:
            collect(found, scheduler.close(stream))
        return [told(found[stream]) for stream in streams]

    for wave, (posteriors, events, _) in zip(waves, heard([*waves], True)):
        ((alone, expected, _),) = heard([wave], False)
        assert np.array_equal(posteriors, alone) and events == expected


def test_an_error_of_what_is_done_meanwhile_is_raised_once_the_batch_is_computed(monkeypatch):
    scheduler, order = Scheduler(small_model(), 5), []
    run = scheduler.batch.bound.run
    monkeypatch.setattr(
        scheduler.batch.bound, "run", lambda size: (time.sleep(0.2), run(size), order.append("computed"))
    )
    stream = Stream(scheduler.model, 5)
    scheduler.join(stream)
    scheduler.feed(stream, noise(8000))
    with pytest.raises(ZeroDivisionError):
        scheduler.turn(lambda: (order.append("meanwhile"), 1 / 0))
    assert order == ["meanwhile", "computed"]


@pytest.mark.parametrize(("bad", "sizes"), [
    (set(), [1, 2, 4, 8, 16, 24, 32, 48, 64]),
    ({24, 48}, [1, 2, 4, 8, 16, 32, 64]),
    ({4}, [8, 16, 24, 32, 48, 64]),
    ({16, 48}, [24, 32, 64]),
    ({64}, [1]),
])  # fmt: skip
def test_a_batch_size_that_is_not_exact_takes_smaller_ones_with_it_unless_it_is_between_two(monkeypatch, bad, sizes):
    monkeypatch.setattr(state_batch, "agrees", lambda *given: given[4] not in bad)
    assert state_batch.independent_sizes(small_model(), 800, 64) == sizes
