"""Stream and tick: the streaming answer is the offline answer, whatever sizes the samples arrive in."""

import numpy as np
import pytest
import torch
from conftest import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.media import read
from pipeline.stream import Stream, tick


def listen(model, wave, sizes, block=3):
    """Push a wave in the given sizes; all posteriors and events."""
    stream, at = Stream(model, block), 0
    posteriors, events = [], []
    for size in sizes:
        events += stream.push(wave[at : at + size])
        posteriors.append(stream.posteriors)
        at += size
    events += stream.push(wave[at:])
    posteriors.append(stream.posteriors)
    events += stream.close()
    posteriors.append(stream.posteriors)
    assert stream.first + len(stream.posteriors) == stream.steps
    return np.concatenate(posteriors), events


def offline(model, wave):
    x = torch.from_numpy(wave)[None]
    with torch.inference_mode():
        y, _ = model(model.whole((x,), len(wave)), model.initial(1))
    return y[0, model.delay :].numpy()


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16000)) / 16000
    return (rng.standard_normal(len(t)) * 0.1 * (1 + np.sin(5 * t))).astype(np.float32)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 9000), max_size=12), length=st.integers(0, 20000))
def test_any_chunks_same_bits(sizes, length):
    model = small_model("encoder=conv_recurrent", "head.window=0.3", "head.delay=0.04")
    wave = noise(2)[:length]
    first, first_events = listen(model, wave, [])
    second, second_events = listen(model, wave, sizes)
    assert np.array_equal(first, second) and first_events == second_events
    assert len(first) == -(-length // model.hop)
    if length:
        assert np.abs(first - offline(model, wave)).max() <= 1e-5


def test_200_random_splits_of_a_real_recording(real):
    path = real / "streams" / "digits_0_snr20.flac"
    wave, _ = read(path, 16000, 0.0, 12.0)
    model = small_model("encoder=conv_recurrent", "decoder.threshold=0.4", "decoder.release=0.35", "head.window=0.3")
    whole, events = listen(model, wave, [])
    assert np.abs(whole - offline(model, wave)).max() <= 1e-5
    rng = np.random.default_rng(7)
    for trial in range(200):
        largest = int(np.exp(rng.uniform(np.log(200), np.log(len(wave)))))
        sizes = [1, *rng.integers(0, largest, size=2 * len(wave) // largest + 1)] if trial else [1] * 700
        parts, found = listen(model, wave, sizes)
        assert np.array_equal(parts, whole) and found == events


def test_20_ragged_streams_batched_equal_each_alone():
    model = small_model("head.window=0.3")
    rng = np.random.default_rng(1)
    waves = [noise(rng.uniform(0.1, 2.0), seed) for seed in range(20)]
    streams = [Stream(model, 3) for _ in waves]
    heard = [[] for _ in waves]
    at = [0] * len(waves)
    while any(position < len(wave) for position, wave in zip(at, waves)):
        for index in rng.permutation(20)[: rng.integers(1, 21)]:
            size = int(rng.integers(0, 3000))
            if not streams[index].ready():
                streams[index].feed(waves[index][at[index] : at[index] + size])
                at[index] += size
        tick(model, streams)
        for index, stream in enumerate(streams):
            heard[index].append(stream.posteriors)
    for index, (stream, wave) in enumerate(zip(streams, waves)):
        while stream.ready():
            tick(model, [stream])
            heard[index].append(stream.posteriors)
        stream.close()
        heard[index].append(stream.posteriors)
        alone, _ = listen(model, wave, [])
        together = np.concatenate(heard[index])
        assert together.shape == alone.shape
        assert np.abs(together - alone).max() <= 1e-5


def test_tick_without_work_and_with_mixed_blocks():
    model = small_model()
    idle = Stream(model, 2)
    assert tick(model, [idle]) == [[]]
    one, two = Stream(model, 2), Stream(model, 3)
    for stream in (one, two):
        stream.feed(noise(1))
    with pytest.raises(ValueError, match="one block size"):
        tick(model, [one, two])


def test_state_is_a_value_that_can_be_held_and_handed_back():
    model = small_model()
    stream = Stream(model, 3)
    stream.push(noise(1)[: stream.size * 7])
    held = stream.state
    stream.push(noise(1, 1)[: stream.size * 4])
    first = stream.posteriors
    stream.state = held
    stream.push(noise(1, 1)[: stream.size * 4])
    assert np.array_equal(first, stream.posteriors)


def test_non_finite_samples_do_not_poison_a_stream():
    model = small_model()
    wave = noise(1)
    wave[[5, 4000, 9000, 12000]] = np.nan, np.inf, -np.inf, 1e30
    posteriors, _ = listen(model, wave, [100, 5000])
    assert np.isfinite(posteriors).all()


def test_a_model_that_is_not_causal_is_refused():
    model = small_model()
    model.encoder.causal = model.causal = False
    with pytest.raises(ConfigError, match="encoder: looks into the future"):
        Stream(model)


def test_a_closed_stream_takes_no_more():
    stream = Stream(small_model())
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.push(noise(0.1))


def test_delay_sets_times_back():
    model, late = small_model(), small_model("head.delay=0.05")
    wave = noise(1)
    now, _ = listen(model, wave, [])
    then, _ = listen(late, wave, [])
    assert late.delay == 5 and len(now) == len(then)
    assert np.abs(now[5:] - then[:-5]).max() <= 1e-5  # same weights: what was said at t + delay is said of t


def test_events_of_a_stream_are_those_of_the_decoder():
    model = small_model("decoder.threshold=0.4", "decoder.release=0.3", "decoder.minimum=0", "head=last")
    wave = noise(2)
    posteriors, events = listen(model, wave, [777] * 10)
    decoder = model.decoder()
    assert events == decoder.decode(posteriors) + decoder.close()
    assert events and all(isinstance(event, Event) and event.start < event.end for event in events)
