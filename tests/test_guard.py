"""Guards: whatever comes in, nothing that is not finite comes out, the stream recovers, and each trouble is told once."""

import functools

import numpy as np
import pytest
import torch
from conftest import BOTH, PICTURES, listen, lively_model, noise, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.layers.stage import tree
from pipeline.media.audio import MAX_AMPLITUDE
from pipeline.model.stream_model import finite
from pipeline.streaming.guard import EPISODE_SECONDS, FULL_SCALE, TEXTS
from pipeline.streaming.stream import Stream

RATE = 16000
DENORMAL = 1e-41
CLIPPING = np.clip(3 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE), -1, 1).astype(np.float32)
BAD = {  # what stands in for a tenth of a second, and the warning that it is worth
    "nan": (lambda x: np.full_like(x, np.nan), "not_finite"),
    "one nan": (lambda x: np.where(np.arange(len(x)) == 77, np.nan, x), "not_finite"),
    "inf": (lambda x: np.full_like(x, np.inf), "not_finite"),
    "both inf": (lambda x: np.where(np.arange(len(x)) % 2, np.float32(np.inf), np.float32(-np.inf)), "not_finite"),
    "enormous": (lambda x: np.full_like(x, 3e38), "too_loud"),
    "-inf": (lambda x: np.full_like(x, -np.inf), "not_finite"),
    "1e30": (lambda x: np.full_like(x, 1e30), "too_loud"),
    "1e19": (lambda x: -np.full_like(x, 1e19), "too_loud"),
    "of 64 bits": (lambda x: x.astype(np.float64) + 1e300, "not_finite"),
    "16-bit numbers": (lambda x: np.round(np.where(np.abs(x) < 0.01, 0.01, x) * 32767).astype(np.float32), "too_loud"),
    "clipping": (lambda x: CLIPPING[: len(x)], "clipped"),
    "offset": (lambda x: x / 20 + np.float32(0.9), "offset"),
    "denormal": (lambda x: np.full_like(x, DENORMAL), None),
    "zero": (np.zeros_like, None),
}
SECONDS, LENGTH = 6, 1600


@functools.cache
def sounding():
    """A model that forgets, as trained ones do, and answers all the same."""
    return small_model("encoder=conv_recurrent", "head.window=0.3", times=1.0)


@functools.cache
def undisturbed():
    return heard(sounding(), [noise(SECONDS * RATE)])


def heard(model, chunks, block=4):
    """All posteriors and warnings."""
    stream = Stream(model, block)
    posteriors, _, warnings = listen(stream, chunks)
    return posteriors, warnings, stream


@pytest.mark.parametrize(("kind", "place"), [
    pytest.param(kind, place, marks=[pytest.mark.long] * (place != "middle" and kind != "nan"))
    for kind in BAD for place in ("first", "middle", "last")
])  # fmt: skip
def test_bad_sound_is_survived_and_told_once(kind, place):
    model, (make, code), (clean, none, _) = sounding(), BAD[kind], undisturbed()
    chunks = np.split(noise(SECONDS * RATE), SECONDS * RATE // LENGTH)
    number = {"first": 0, "middle": len(chunks) // 3, "last": len(chunks) - 1}[place]
    chunks[number] = make(chunks[number])
    begin, end = number * LENGTH, (number + 1) * LENGTH
    found, warnings, stream = heard(model, chunks)
    assert not none and found.shape == clean.shape
    assert np.isfinite(found).all() and finite(stream.state, stream.guard.initial).all()
    assert np.array_equal(found[: begin // model.hop], clean[: begin // model.hop])
    assert np.abs(found - clean)[(end + 2 * RATE) // model.hop :].max(initial=0.0) <= 1e-3
    assert place == "last" or len(found) > (end + 2 * RATE) // model.hop
    assert [row["code"] for row in warnings] == ([code] if code else [])
    for row in warnings:
        early = stream.size if code == "offset" else 0  # told of a block as a whole
        assert begin - early <= row["time"] * RATE <= end and row["text"] == TEXTS[code]
    assert (stream.guard.counts.denormal == LENGTH) == (kind == "denormal")


@pytest.mark.parametrize(("value", "place"), [(0, 0), (255, 40), (0, 149)])
def test_black_and_white_pictures_are_harmless(place, value):
    """Bytes have no bad values: floats are refused, see test_video. Ten pictures of one colour are forgotten."""
    model = lively_model(*PICTURES, "cell=conv_lstm", "encoder.hidden=8", "head.window=0.5", times=1.0)
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 12, 3), dtype=np.uint8)
    clean, _, _ = heard(model, [images])
    images[place : place + 10] = value
    found, warnings, _ = heard(model, [images[:50], images[50:]])
    assert not warnings and np.isfinite(found).all()
    assert np.array_equal(found[:place], clean[:place])
    assert np.abs(found - clean)[place + 10 + 2 * model.rate :].max(initial=0.0) <= 1e-3


def test_bad_sound_and_marks_beside_pictures():
    model = lively_model(*BOTH, "encoder.hidden=8", "head.window=0.5")
    rng, pictures = np.random.default_rng(0), 4 * model.rate // model.spec.grain
    images = rng.integers(0, 256, (pictures, 8, 12, 3), dtype=np.uint8)
    samples, marks = noise(4 * RATE), np.ones((pictures, 2), np.float32)
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        samples[:1600], marks[30] = bad, bad
        found, warnings, stream = heard(model, [(samples, images, marks)])
        assert np.isfinite(found).all() and finite(stream.state, stream.guard.initial).all()
        assert [row["code"] for row in warnings] == ["too_loud" if bad == 1e30 else "not_finite"]


@settings(max_examples=60)
@given(
    wave=arrays(np.float32, st.integers(0, 3000), elements=st.floats(width=32, allow_nan=True, allow_infinity=True), fill=st.floats(-1, 1, width=32)),
    sizes=st.lists(st.integers(0, 900), max_size=5),
)  # fmt: skip
def test_no_samples_at_all_make_anything_that_is_not_finite(wave, sizes):
    model = sounding()
    cuts = np.cumsum(sizes)
    whole, warnings, stream = heard(model, [wave])
    parts, others, _ = heard(model, np.split(wave, np.clip(cuts, 0, len(wave))))
    assert np.isfinite(whole).all() and np.isfinite(parts).all()
    assert np.array_equal(whole, parts) and warnings == others  # warnings do not depend on chunks, either
    bad, loud = ~np.isfinite(wave), np.isfinite(wave) & (np.abs(wave) > MAX_AMPLITUDE)
    assert (stream.guard.counts.not_finite, stream.guard.counts.too_loud) == (bad.sum(), loud.sum())


def test_an_episode_is_over_when_it_has_not_come_for_a_while():
    model = small_model()
    loud = np.tile(CLIPPING, 3)
    quiet = np.zeros(int((EPISODE_SECONDS + 1) * RATE), np.float32)
    _, warnings, _ = heard(model, [loud, loud, quiet[: 5 * RATE], loud, quiet, loud])
    assert [(row["code"], row["time"]) for row in warnings] == [("clipped", 0.0), ("clipped", 25.0)]


def test_loud_but_right_is_not_told():
    """Single samples at full scale are what normalising makes."""
    wave = noise(3 * RATE)
    wave /= np.abs(wave).max()
    assert np.abs(wave).max() >= FULL_SCALE
    _, warnings, stream = heard(small_model(), [wave])
    assert not warnings and stream.guard.counts.clipped >= 1


def test_the_caller_may_reuse_the_buffer():
    model, wave, buffer = small_model(), noise(1 * RATE), np.zeros(320, np.float32)

    def reused():
        for part in np.split(wave, 50):
            buffer[:] = part
            yield buffer
            buffer[:] = np.nan

    assert np.array_equal(heard(model, reused())[0], heard(model, [wave])[0])


# ---------------------------------------------------------------- the state


class Trouble(torch.nn.Module):
    """Stands in the model's way: spoils the answers or the state of some steps. The rest is real."""

    def __init__(self, model, at, what):
        super().__init__()
        self.at, self.what, self.number = at, what, 0
        model.register_forward_hook(self.spoil)

    def spoil(self, module, given, answer):
        y, state = answer
        if self.number in self.at:
            if self.what in ("state", "both"):
                state = tree(lambda leaf: leaf * torch.inf if leaf.is_floating_point() else leaf, state)
            if self.what in ("posteriors", "both"):
                y = y * torch.nan
        self.number += 1
        return y, state


@pytest.mark.parametrize("what", ["state", "posteriors", "both"])
def test_a_bad_step_is_taken_back(what):
    model, wave = small_model("head.window=0.3", times=1.0), noise(6 * RATE)
    clean, _, _ = heard(model, [wave], 10)
    Trouble(model, {7, 8}, what)  # 0.7 to 0.9 s
    found, warnings, stream = heard(model, [wave[:30000], wave[30000:]], 10)
    assert np.isfinite(found).all() and len(found) == len(clean)
    assert np.array_equal(found[:70], clean[:70])
    assert (found[70:90] == clean[69]).all()  # the last good answer stands
    assert np.abs(found - clean)[290:].max() <= 1e-3
    assert [(row["code"], row["time"]) for row in warnings] == [("not_computed", 0.7)]
    assert stream.guard.counts.not_computed == 2 and stream.guard.counts.failing == 0


def test_what_cannot_be_computed_for_long_is_nothing_heard_and_begins_anew():
    model, wave = small_model("head.window=0.3", times=1.0), noise(6 * RATE)
    Trouble(model, set(range(5, 30)), "both")  # 0.5 to 3 s
    stream = Stream(model, 10, model.decoder(threshold=0.1, release=0.05, minimum=0.0, background=[]))
    events, told = [], []
    for at in range(0, len(wave), RATE // 10):
        events += stream.push(wave[at : at + RATE // 10])
        told.append(stream.posteriors)
    posteriors = np.concatenate(told)
    assert np.isfinite(posteriors).all()
    assert (posteriors[50:150] == posteriors[49]).all() and not posteriors[150:300].any()
    assert events and {event.end for event in events} == {150 * model.hop}  # open events end, once
    fresh, _, _ = heard(model, [wave[3 * RATE :]], 10)
    assert np.abs(posteriors[300:] - fresh).max() <= 1e-5
