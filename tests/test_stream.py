"""Stream and tick: the streaming answer is the offline answer, whatever sizes the samples arrive in."""

import functools

import numpy as np
import pytest
import torch
from conftest import DATA, listen, lively_model, noise, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.decoders.decoder import Event
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import InputSpec
from pipeline.streaming.stream import Stream


def told(model, chunks, block=3):
    """All that a stream tells, and its clock."""
    stream = Stream(model, block)
    found = listen(stream, chunks)
    assert stream.ticks == sum(stream.spec.ticks(stream.spec.parts(chunk)) for chunk in chunks)
    return *found, stream.steps


def offline(model, wave):
    x = torch.from_numpy(wave)[None]
    with torch.inference_mode():
        y, _ = model(model.pad((x,), len(wave)), model.initial(1))
    return y[0, model.delay :].numpy()


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(0, 9000), max_size=12), length=st.integers(0, 20000))
def test_any_chunks_same_bits(sizes, length):
    model = small_model("encoder=conv_recurrent", "head.window=0.3", "head.delay=0.04")
    wave = noise(length)
    first, *rest = told(model, [wave])
    second, *others = told(model, np.split(wave, np.cumsum(sizes).clip(0, length)))
    assert np.array_equal(first, second) and rest == others
    assert len(first) == -(-length // model.hop)
    if length:
        assert np.abs(first - offline(model, wave)).max() <= 1e-5


def test_state_is_a_value_that_can_be_held_and_handed_back():
    model = small_model()
    stream = Stream(model, 3)
    stream.push(noise(16000)[: stream.size * 7])
    held = stream.state
    stream.push(noise(16000, 1)[: stream.size * 4])
    first = stream.posteriors
    stream.state = held
    stream.push(noise(16000, 1)[: stream.size * 4])
    assert np.array_equal(first, stream.posteriors)


def test_a_model_that_is_not_causal_is_refused():
    model = small_model()
    model.encoder.causal = model.causal = False
    with pytest.raises(ConfigError, match="encoder: looks into the future"):
        Stream(model)


def test_a_closed_stream_takes_no_more():
    stream = Stream(small_model())
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.push(noise(1600))


def test_delay_sets_times_back():
    model, late = small_model(), small_model("head.delay=0.05")
    wave = noise(16000)
    now, then = (told(one, [wave])[0] for one in (model, late))
    assert late.delay == 5 and len(now) == len(then)
    assert np.abs(now[5:] - then[:-5]).max() <= 1e-5  # same weights: what was said at t + delay is said of t


def test_events_of_a_stream_are_those_of_the_decoder():
    model = small_model("decoder.threshold=0.4", "decoder.release=0.3", "decoder.minimum=0", "head=last")
    wave = noise(32000)
    posteriors, events, *_ = told(model, np.split(wave, 10))
    decoder = model.decoder()
    assert events == decoder.decode(posteriors) + decoder.close()
    assert events and all(isinstance(event, Event) and event.start < event.end for event in events)


# ---------------------------------------------------------------- splits of real recordings

QUICK = ("decoder.threshold=0.36", "decoder.release=0.34", "decoder.minimum=0", "decoder.merge=0.02", "head.window=0.3", "encoder.hidden=8")  # fmt: skip
REAL = {  # file, its second, settings
    "sound": ("streams/keywords_0_snr20.flac", 4.0, ("encoder=recurrent", "extractor.mels=20")),
    "pictures": ("streams/gestures_S7.mp4", 3.0, ("extractor=frames", "extractor.height=24", "extractor.width=32", "encoder=image_recurrent", "cell=conv_lstm")),
    "both": ("grid_av/bbaf2n.mpg", 0.0, ("extractor=audiovisual", "extractor.picture.height=28", "extractor.picture.width=28", "extractor.sound.mels=20", "encoder=recurrent")),
}  # fmt: skip


@functools.cache
def recorded(kind):
    """A model, three seconds of a real recording as it takes them, and what it answers to them as one chunk."""
    path, start, settings = REAL[kind]
    model = lively_model(*settings, *QUICK)
    parts, _ = read_chunk(DATA / path, model.spec, start, start + 3.0)
    parts = model.spec.cut(parts, model.spec.ticks(parts) // model.spec.grain * model.spec.grain)[0]
    return model, parts, told(model, [parts], 5)


def random_split(spec: InputSpec, parts, rng):
    """Chunks from one sample (or picture) to ten seconds, some empty, sizes spread evenly over all orders of magnitude."""
    seconds = rng.choice([0.01, 0.1, 1.0, 10.0])
    while spec.ticks(parts):
        most = max(1.0, seconds * spec.rate / spec.grain)
        grains = int(np.exp(rng.uniform(0, np.log(most)))) if rng.random() > 0.1 else 0
        first, parts = spec.cut(parts, grains * spec.grain)
        yield first


def assert_splits_change_nothing(kind, trials):
    model, parts, whole = recorded(kind)
    for seed in trials:
        found = told(model, list(random_split(model.spec, parts, np.random.default_rng(seed))), 5)
        assert np.array_equal(found[0], whole[0]) and found[1:] == whole[1:], f"split {seed}"
    assert len(whole[1]) and np.ptp(whole[0], axis=0).max() > 0.01  # it says something about something


@pytest.mark.parametrize(("kind", "count"), [("sound", 10), ("pictures", 10), ("both", 10)])
def test_random_splits_of_real_recordings(real, kind, count):
    assert_splits_change_nothing(kind, range(count))


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_10000_random_splits_of_real_sound_and_1000_of_pictures(real, part):
    assert_splits_change_nothing("sound", range(1000 * part, 1000 * (part + 1)))
    assert_splits_change_nothing("pictures", range(100 * part, 100 * (part + 1)))
    assert_splits_change_nothing("both", range(100 * part, 100 * (part + 1)))


# ---------------------------------------------------------------- time

TEN_YEARS = 10 * 366 * 86400


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("how", ["reset", "keep"])
@pytest.mark.parametrize("kind", REAL)
def test_ten_years_later_everything_is_the_same(real, kind, how, extra):
    model, parts, whole = recorded(kind)
    ticks = TEN_YEARS * model.rate // model.grain * model.grain
    for later in (ticks, (2**53 // model.grain + 1) * model.grain):
        late = Stream(model, 5)
        assert late.gap(np.int64(later), how) == [] and late.ticks == later and type(late.ticks) is int
        late.gap(extra * model.grain, how)
        moved = later + extra * model.grain
        late = Stream.restore(model, late.snapshot())
        events = late.push(parts)
        answered, first = late.posteriors, late.first
        late = Stream.restore(model, late.snapshot())
        events += late.close()
        assert first == moved // model.hop and late.ticks == moved + model.spec.ticks(parts)
        assert np.array_equal(np.concatenate([answered, late.posteriors]), whole[0])
        expected = [Event(e.label, e.start + moved, e.end + moved, e.score, e.peak + moved) for e in whole[1]]
        assert events == expected and all(type(e.start) is int for e in events)


@pytest.mark.parametrize("head", ["mean", "max", "last"])
def test_what_counts_steps_in_the_state_may_count_for_ten_years(head):
    model = small_model(f"head={head}", "head.window=0.3")
    stream = Stream(model, 5)
    stream.push(noise(16000))
    steps = TEN_YEARS * model.rate // model.hop
    counters = [array for array in stream.state if array.dtype.kind != "f"]
    assert all(array.dtype == np.int64 for array in counters) and (head != "mean" or counters)
    old = Stream.restore(model, stream.snapshot())
    old.state = tuple(array if array.dtype.kind == "f" else array + steps for array in old.state)
    stream.push(noise(16000, 1))
    old.push(noise(16000, 1))
    assert np.array_equal(stream.posteriors, old.posteriors)


def test_a_gap_that_is_no_multiple_of_a_step_stays_on_the_clock():
    model = small_model("head.window=0.3")
    later = TEN_YEARS * model.rate + 77
    for how in ("reset", "keep"):
        late, fresh = Stream(model, 5), Stream(model, 5)
        late.gap(later, how)
        left_out = -later % model.hop
        late.push(noise(16000))
        fresh.push(noise(16000)[left_out:])
        assert np.array_equal(late.posteriors, fresh.posteriors)
        assert (late.first - fresh.first) * model.hop == later + left_out and late.ticks == later + 16000
    with pytest.raises(ValueError, match="a gap of -1 ticks"):
        late.gap(-1)
