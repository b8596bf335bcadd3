"""Guards: whatever comes in, nothing that is not finite comes out, the stream recovers, and each trouble is told once."""

import functools

import numpy as np
import pytest
import torch
from conftest import configured, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.layers.stage import tree
from pipeline.media.audio import MAX_AMPLITUDE, read
from pipeline.model.classifier import Classifier
from pipeline.streaming.guard import EPISODE_SECONDS, FULL_SCALE, TEXTS, Guard, finite
from pipeline.streaming.stream import Stream

RATE = 16000
DENORMAL = 1e-41
CLIPPING = np.clip(3 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE), -1, 1).astype(np.float32)
BAD = {  # what stands in for a tenth of a second, and the warning that it is worth
    "nan": (lambda x: np.full_like(x, np.nan), "not_finite"),
    "one nan": (lambda x: np.where(np.arange(len(x)) == 77, np.nan, x), "not_finite"),
    "inf": (lambda x: np.full_like(x, np.inf), "not_finite"),
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
SECONDS, LENGTH = 6.0, 1600


def sounding(cell, encoder="conv_recurrent"):
    """A model that forgets, as trained ones do, and answers all the same."""
    torch.manual_seed(0)
    settings = (f"cell={cell}", f"encoder={encoder}", "extractor.mels=20", "encoder.hidden=16", "head.window=0.3")
    model = Classifier(configured("train", *settings), ["background", "high", "low"]).eval()
    with torch.no_grad():
        model.standardize.mean.fill_(-8.0)
        model.standardize.std.fill_(3.0)
    return model


sounding_once = functools.cache(sounding)


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    return (rng.standard_normal(len(t)) * 0.05 * (1.2 + np.sin(5 * t))).astype(np.float32)


def heard(model, chunks, block=4):
    """All posteriors and warnings."""
    stream, posteriors, warnings = Stream(model, block), [], []
    for chunk in chunks:
        stream.push(chunk)
        posteriors.append(stream.posteriors)
        warnings += stream.warnings
    stream.close()
    posteriors.append(stream.posteriors)
    return np.concatenate(posteriors), warnings + stream.warnings, stream


def spoilt(wave, place, make):
    """The wave in chunks, of which one is bad; and where it begins and ends."""
    chunks = [wave[at : at + LENGTH] for at in range(0, len(wave), LENGTH)]
    number = {"first": 0, "middle": len(chunks) // 3, "last": len(chunks) - 1}[place]
    chunks[number] = make(chunks[number])
    return chunks, number * LENGTH, (number + 1) * LENGTH


def assert_survived(model, wave, kind, place):
    make, code = BAD[kind]
    clean, none, _ = heard(model, [wave])
    chunks, begin, end = spoilt(wave, place, make)
    found, warnings, stream = heard(model, chunks)
    assert not none and found.shape == clean.shape
    assert np.isfinite(found).all() and finite(stream.state)
    assert np.array_equal(found[: begin // model.hop], clean[: begin // model.hop])
    assert np.abs(found - clean)[(end + 2 * RATE) // model.hop :].max(initial=0.0) <= 1e-3
    if place != "last":
        assert len(found) > (end + 2 * RATE) // model.hop
    assert [row["code"] for row in warnings] == ([code] if code else [])
    for row in warnings:
        early = stream.size if code == "offset" else 0  # told of a block as a whole
        assert begin - early <= row["time"] * RATE <= end and row["text"] == TEXTS[code]
    assert (stream.guard.counts.denormal == LENGTH) == (kind == "denormal")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_bad_sound_is_survived_and_told_once(cell, kind, place):
    assert_survived(sounding(cell), noise(SECONDS), kind, place)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_values_in_a_real_recording(real, cell, kind):
    wave, _ = read(real / "streams" / "keywords_0_snr20.flac", RATE, 3.0, 3.0 + SECONDS)
    for place in ("first", "middle", "last"):
        assert_survived(sounding(cell), wave, kind, place)


def seeing(*overrides):
    """A model of small pictures, or of both."""
    torch.manual_seed(0)
    return Classifier(configured("train", *overrides, "encoder.hidden=8"), ["background", "a", "b"]).eval()


@pytest.mark.parametrize("place", [0, 40, 149])
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pictures_are_harmless(place, value):
    """Bytes have no bad values: floats are refused, see test_video. Ten pictures of one colour are forgotten."""
    model = seeing("extractor=frames", "extractor.height=16", "extractor.width=16", "encoder=image_recurrent", "cell=conv_lstm", "head.window=0.5")  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (150, 16, 16, 3), dtype=np.uint8)
    clean, _, _ = heard(model, [images])
    images[place : place + 10] = value
    found, warnings, _ = heard(model, [images[:50], images[50:]])
    assert not warnings and np.isfinite(found).all()
    assert np.array_equal(found[:place], clean[:place])
    assert np.abs(found - clean)[place + 10 + 2 * model.rate :].max(initial=0.0) <= 1e-3


def test_bad_sound_and_marks_beside_pictures():
    model = seeing("extractor=audiovisual", "extractor.picture.height=28", "extractor.picture.width=28", "encoder=conv_recurrent", "head.window=0.5")  # fmt: skip
    rng, pictures = np.random.default_rng(0), 4 * model.rate // model.spec.grain
    images = rng.integers(0, 256, (pictures, 28, 28, 3), dtype=np.uint8)
    samples, marks = noise(4), np.ones((pictures, 2), np.float32)
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        samples[:1600], marks[30] = bad, bad
        found, warnings, stream = heard(model, [(samples, images, marks)])
        assert np.isfinite(found).all() and finite(stream.state)
        assert [row["code"] for row in warnings] == ["too_loud" if bad == 1e30 else "not_finite"]


@settings(max_examples=60)
@given(
    wave=arrays(np.float32, st.integers(0, 3000), elements=st.floats(width=32, allow_nan=True, allow_infinity=True), fill=st.floats(-1, 1, width=32)),
    sizes=st.lists(st.integers(0, 900), max_size=5),
)  # fmt: skip
def test_no_samples_at_all_make_anything_that_is_not_finite(wave, sizes):
    model = sounding_once("gru")
    cuts = np.cumsum(sizes)
    whole, warnings, _ = heard(model, [wave])
    parts, others, _ = heard(model, np.split(wave, np.clip(cuts, 0, len(wave))))
    assert np.isfinite(whole).all() and np.isfinite(parts).all()
    assert np.array_equal(whole, parts) and warnings == others  # warnings do not depend on chunks, either
    guard = Guard(RATE, True, (), 3)
    if len(wave):
        clean = guard.samples(wave, 0)
        assert np.isfinite(clean).all() and np.abs(clean).max() <= MAX_AMPLITUDE
        assert not ((clean != 0) & (np.abs(clean) < np.finfo(np.float32).tiny)).any()
        sound = np.isfinite(wave) & (np.abs(wave) <= MAX_AMPLITUDE) & (np.abs(wave) >= np.finfo(np.float32).tiny)
        assert np.array_equal(clean[sound], wave[sound])  # what is sound is left alone
        assert guard.counts.not_finite == (~np.isfinite(wave)).sum()
        assert guard.counts.too_loud == (np.isfinite(wave) & (np.abs(wave) > MAX_AMPLITUDE)).sum()


def test_an_episode_is_over_when_it_has_not_come_for_a_while():
    model = small_model()
    loud = np.tile(CLIPPING, 3)
    quiet = np.zeros(int((EPISODE_SECONDS + 1) * RATE), np.float32)
    _, warnings, _ = heard(model, [loud, loud, quiet[: 5 * RATE], loud, quiet, loud])
    assert [(row["code"], row["time"]) for row in warnings] == [("clipped", 0.0), ("clipped", 25.0)]


def test_loud_but_right_is_not_told():
    """Single samples at full scale are what normalising makes."""
    wave = noise(3)
    wave /= np.abs(wave).max()
    assert np.abs(wave).max() >= FULL_SCALE
    _, warnings, stream = heard(small_model(), [wave])
    assert not warnings and stream.guard.counts.clipped >= 1


def test_the_caller_may_reuse_the_buffer():
    model, wave = small_model(), noise(1)
    whole, _, _ = heard(model, [wave])
    stream, told, buffer = Stream(model, 4), [], np.zeros(333, np.float32)
    for at in range(0, len(wave), 333):
        part = wave[at : at + 333]
        buffer[: len(part)] = part
        stream.push(buffer[: len(part)])
        buffer[:] = np.nan
        told.append(stream.posteriors)
    stream.close()
    assert np.array_equal(np.concatenate([*told, stream.posteriors]), whole)


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
    model, wave = sounding("gru", "recurrent"), noise(6)
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
    model, wave = sounding("gru", "recurrent"), noise(6)
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


def test_a_state_that_somebody_spoils_is_replaced():
    model, wave = sounding("gru"), noise(3)
    stream = Stream(model, 10)
    stream.push(wave)
    stream.state = tree(lambda leaf: leaf * torch.nan if leaf.is_floating_point() else leaf, stream.state)
    stream.push(wave)
    assert np.isfinite(stream.posteriors).all() and finite(stream.state)
    assert [row["code"] for row in stream.warnings] == ["not_computed"]


def test_finite_looks_at_every_number():
    state = (torch.zeros(1, 3), (torch.ones(1, 2, 4), torch.zeros(1, 1, dtype=torch.int64)), ())
    assert finite(state, state)
    assert finite((torch.full((1, 3), 3e38),))  # its square is not finite, but it is
    for bad in (np.nan, np.inf, -np.inf):
        for number in range(8):
            leaf = torch.ones(1, 2, 4)
            leaf.view(-1)[number] = bad
            assert not finite((state[0], (leaf, state[1][1]), ()), state)
    nothing = (torch.full((1, 2), -torch.inf),)  # a maximum of nothing yet
    assert finite(nothing, nothing) and not finite((torch.full((1, 2), torch.inf),), nothing)
    assert not finite((torch.full((1, 2), torch.nan),), nothing)
