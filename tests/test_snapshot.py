"""Snapshots: a stream goes on in another process bit for bit, and bytes that are not right are refused, whatever they say."""

import copy
import functools
import inspect
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, listen, lively_model, peak_below
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from pipeline.core.errors import SnapshotError
from pipeline.model.classifier import load
from pipeline.streaming import snapshot
from pipeline.streaming.stream import Stream

DENSE = ["elman", "jordan", "lstm", "peephole_lstm", "coupled_lstm", "coupled_peephole_lstm", "gru", "gru_reset_before", "mgu", "min_gru"]  # fmt: skip
SOUND = ("encoder=conv_recurrent", "extractor.mels=20", "head.window=0.3", "head.delay=0.04")
MODELS = {
    **{cell: (f"cell={cell}", *SOUND) for cell in DENSE},
    "maximum": ("encoder=recurrent", "extractor=mfcc", "head=max", "head.window=0.2", "encoder.layers=2"),
    "since the start": ("encoder=recurrent", "extractor.mels=20", "head=mean", "head.window=null", "smoothing=none"),
    "conv_lstm": ("extractor=frames", "extractor.height=24", "extractor.width=32", "encoder=image_recurrent", "cell=conv_lstm", "head.window=0.5"),
    "conv_gru": ("extractor=frame_difference", "extractor.height=24", "extractor.width=32", "encoder=image_recurrent", "cell=conv_gru", "head.window=0.5"),
    "series": ("extractor=values", "extractor.columns=[x,y,z]", "extractor.rate=100", "encoder=conv_recurrent", "head.window=0.3", "head.delay=0.04"),
    "audiovisual": ("extractor=audiovisual", "extractor.picture.height=28", "extractor.picture.width=28", "extractor.sound.mels=20", "encoder=conv_recurrent", "head.window=0.3"),
}  # fmt: skip
DECODER = ("decoder.threshold=0.36", "decoder.release=0.33", "decoder.minimum=0", "decoder.merge=0.03")


@functools.cache
def model_of(name):
    return lively_model(*MODELS[name], *DECODER, "encoder.hidden=16", labels="abc", seed=3)


def clip(spec, seconds, seed):
    """Noise that comes and goes, pictures with something that moves, and tracks that are sometimes lost."""
    rng = np.random.default_rng(seed)
    grains = int(seconds * spec.rate) // spec.grain
    found = []
    for track in spec.tracks:
        steps = grains * track.steps
        t = np.arange(steps)
        if track.kind is np.uint8:
            frames = rng.integers(0, 60, (steps, *track.shape), dtype=np.uint8)
            for number in range(steps):
                frames[number, :, (3 * number) % (track.shape[1] - 4) :][:, :4] += 190
            found.append(frames)
        elif spec.series:
            rows = rng.standard_normal((steps, *track.shape)).cumsum(0) / 20
            found.append(np.where(rng.random(rows.shape) < 0.2, np.nan, rows).astype(np.float32))
        elif track.shape:
            found.append((rng.random((steps, 2)) < 0.9).astype(np.float32))
        else:
            found.append((0.2 * rng.standard_normal(steps) * (1 + np.sin(t / 2500))).astype(np.float32))
    return tuple(found)


def pieces(spec, parts, rng):
    """The clip in pieces of random sizes, some of them empty."""
    while spec.ticks(parts):
        grains = spec.ticks(parts) // spec.grain
        size = int(np.exp(rng.uniform(0, np.log(grains + 1)))) - (rng.random() < 0.1)
        first, parts = spec.cut(parts, min(grains, size) * spec.grain)
        yield first


CHILD = f"""
import pickle, sys
import numpy as np, torch
from itertools import chain
from pipeline.model.classifier import load
from pipeline.streaming.stream import Stream
{inspect.getsource(listen)}
threads, jobs = pickle.load(sys.stdin.buffer)
torch.set_num_threads(threads)
found = [listen(Stream.restore(load(path), data), chunks) for path, data, chunks in jobs]
sys.stdout.buffer.write(pickle.dumps(found))
"""


def trial(model, number):
    """A stream of random chunks, gaps and trouble: a snapshot somewhere in it, the chunks that follow, the events before,
    and what an uninterrupted run answers.
    """
    rng, spec = np.random.default_rng(number), model.spec
    chunks = list(pieces(spec, clip(spec, rng.uniform(0.5, 2.5), number), rng))
    if spec.sound and rng.random() < 0.3:
        chunks[0] = (np.full_like(chunks[0][0], np.nan), *chunks[0][1:])
    if rng.random() < 0.3:
        chunks.insert(int(rng.integers(len(chunks) + 1)), int(rng.integers(1, 30)) * spec.grain * 7)
    block, cut = int(rng.integers(1, 12)), int(rng.integers(len(chunks) + 1))
    stream, events = Stream(model, block), []
    for chunk in chunks[:cut]:
        events += stream.push(chunk) if isinstance(chunk, tuple) else stream.gap(chunk, "keep")
    return stream.snapshot(), chunks[cut:], events, listen(Stream(model, block), chunks)


def assert_another_process_goes_on(folder, names, numbers):
    """Bit-equal to the uninterrupted runs; how many steps and events that says something about."""
    jobs, trials = [], []
    for name in names:
        path = folder / f"{name}.safetensors"
        model_of(name).save(path)
        made = [trial(load(path), number) for number in numbers]
        jobs += [(str(path), data, rest) for data, rest, *_ in made]
        trials += made
    given = pickle.dumps((torch.get_num_threads(), jobs))
    done = subprocess.run([sys.executable, "-c", CHILD], input=given, cwd=ROOT, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    steps = heard = 0
    for (posteriors, rest, _), (_, _, events, (all_posteriors, all_events, _)) in zip(
        pickle.loads(done.stdout), trials
    ):
        assert np.array_equal(posteriors, all_posteriors[len(all_posteriors) - len(posteriors) :])
        assert events + rest == all_events
        steps, heard = steps + len(posteriors), heard + len(rest)
    return steps, heard


def test_another_process_goes_on_bit_for_bit(tmp_path):
    steps, heard = assert_another_process_goes_on(tmp_path, ["gru", "conv_lstm", "audiovisual", "series"], range(2))
    assert steps > 30 and heard > 1


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_150_snapshots_of_every_kind_of_model(tmp_path, name):
    assert assert_another_process_goes_on(tmp_path, [name], range(10))[0] > 30


@pytest.mark.parametrize("name", ["maximum", "since the start", "conv_gru", "lstm"])
def test_snapshots_at_every_chunk_change_nothing(name):
    model = model_of(name)
    rng = np.random.default_rng(5)
    chunks = list(pieces(model.spec, clip(model.spec, 1.5, 2), rng))
    whole, all_events, _ = listen(Stream(model, 3), chunks)
    stream, told, events = Stream(model, 3), [], []
    for chunk in chunks:
        stream = Stream.restore(model, stream.snapshot())
        events += stream.push(chunk)
        told.append(stream.posteriors)
        assert stream.snapshot() == Stream.restore(model, stream.snapshot()).snapshot()
    stream = Stream.restore(model, stream.snapshot())
    events += stream.close()
    assert np.array_equal(np.concatenate([*told, stream.posteriors]), whole) and events == all_events
    with pytest.raises(ValueError, match="closed"):
        Stream.restore(model, stream.snapshot()).push(chunks[0])


def test_what_waits_is_kept_and_bounded(monkeypatch):
    model = model_of("gru")
    x = clip(model.spec, 2, 0)
    stream, other = Stream(model, 3), Stream(model, 3)
    stream.feed(x)
    restored = Stream.restore(model, stream.snapshot())
    assert restored.ready()
    assert np.array_equal(listen(restored, [])[0], listen(other, [x])[0])
    monkeypatch.setattr(snapshot, "MAX_WAITING_BYTES", 1000)
    with pytest.raises(SnapshotError, match="128000 waiting; expected 1000"):
        stream.snapshot()


# ---------------------------------------------------------------- bytes that are not right


@functools.cache
def taken(name="gru"):
    stream = Stream(model_of(name), 3)
    stream.push(clip(stream.spec, 1.03, 1))
    return stream.snapshot()


def tried(model, data):
    """Refused, or a stream that works; anything else is an error of the test."""
    try:
        stream = Stream.restore(model, data)
    except SnapshotError as error:
        assert str(error).startswith("snapshot: ")
        return None
    if not stream.closed:
        for chunk in (clip(model.spec, 0.2, 3), clip(model.spec, 0.0, 3)):
            stream.push(chunk)
            assert np.isfinite(stream.posteriors).all()
        stream.close()
    return stream


@pytest.mark.parametrize("name", ["gru", "audiovisual", "maximum"])
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_bytes_are_refused(name, data):
    good = bytearray(taken(name))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, len(bad) - 1), st.integers(0, min(len(bad), 1200) - 1)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
        if how == "flip":
            bad[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del bad[max(1, at) :]
        elif how == "insert":
            bad[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del bad[at : at + data.draw(st.integers(1, 9))]
        bad = bad or bytearray(1)
    stream = tried(model_of(name), bytes(bad))
    if stream is not None:  # bytes without a meaning, as the spaces behind the header
        assert Stream.restore(model_of(name), bytes(bad)).snapshot() == good


@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    assert tried(model_of("gru"), data) is None
    size = len(data).to_bytes(8, "little")
    assert tried(model_of("gru"), size + data) is None


def forged(name="gru", arrays=(), drop=(), **claims):
    """A snapshot with other claims, and the digest that belongs to them: somebody wants us to believe it."""
    good = taken(name)
    size = int.from_bytes(good[:8], "little")
    card = json.loads(json.loads(good[8 : 8 + size])["__metadata__"][snapshot.HEADER].partition(" ")[2])
    for key, value in claims.items():
        place = card["guard"] if key in card["guard"] else card
        place[key] = value
    named = {key: value for key, value in (load_arrays(good) | dict(arrays)).items() if key not in drop}
    text = json.dumps(card)
    return save(named, {snapshot.HEADER: f"{snapshot.digest_of(text, named)} {text}"})


NUMBERS = [-1, 1, 7, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, 10**30, 0.5, 1e308, None, True, "1", [], {}]
KEYS = ["format", "model", "size", "ticks", "surplus", "skip", "steps", "end", "closed", "decoder", "guard"]
KEYS += ["not_finite", "offset", "failing", "seen", "unknown"]


@pytest.mark.parametrize("key", KEYS)
def test_forged_claims_are_refused_or_harmless(key):
    with peak_below(2 * snapshot.MAX_WAITING_BYTES + (8 << 20)):
        for value in (*NUMBERS, {"step": 97}, {"step": 97, "open": {"a": [2**70, 0.5, 0, None]}, "free": {}}):
            tried(model_of("gru"), forged(**{key: value}))


def test_forged_claims_are_told():
    model = model_of("gru")
    large = torch.zeros(1, 4096).numpy()
    for claims, told in (
        ({"format": 2}, "format 2; this version reads format 1"),
        ({"model": "0123"}, "of the model '0123', but this one is"),
        ({"size": 2**40 + 1}, "out of range: size"),
        ({"size": model.hop * 10**7}, "a block of 25600000000 bytes"),
        ({"skip": model.delay + 1}, "out of range: skip"),
        ({"steps": 10**6}, "contradict each other"),
        ({"ticks": 2**62}, "contradict each other"),
        ({"seen": {"x": 1}}, "out of range: guard.seen"),
        ({"ticks": -1}, "its header is not right"),
        ({"decoder": {"step": 3, "open": {}, "free": {}}}, "its decoder is at step 3; expected"),
        ({"decoder": {}}, "no snapshot of a decoder"),
        ({"arrays": {"state.0": large}}, r"state.0 is float32 \(1, 4096\); expected"),
        ({"arrays": {"waiting.0": np.zeros(5, np.float64)}}, "waiting.0 is float64"),
        ({"arrays": {"waiting.0": np.array(0, np.float32)}}, r"waiting.0 is float32 \(\); expected float32 \(0,\)"),
        ({"arrays": {"newest.0": np.zeros(2, np.float32)}}, "its tracks are not of one length"),
        ({"arrays": {"more": large}}, "expected held, newest.0"),
        ({"drop": ["held"]}, "expected held, newest.0"),
        ({"arrays": {"held": np.full(3, np.nan, np.float32)}}, "not finite"),
    ):
        with pytest.raises(SnapshotError, match=told):
            Stream.restore(model, forged(**claims))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1])
def test_a_state_that_is_not_finite_is_refused(bad):
    name, found = "maximum" if bad == -np.inf else "gru", 0
    model = model_of(name)
    for number, leaf in enumerate(model.begin(1)):
        array = leaf.copy()
        if not array.size or (bad == -1) == (array.dtype.kind == "f") or (array == -np.inf).any():
            continue
        array.reshape(-1)[-1] = bad
        found += 1
        with pytest.raises(SnapshotError, match="its state is not finite, or counts less than nothing"):
            Stream.restore(model, forged(name, {f"state.{number}": array}))
    assert found


def test_nothing_large_is_allocated_for_a_lie():
    model, good = model_of("gru"), taken()
    lies = [(2**60).to_bytes(8, "little") + good[8:], (2**63 + 5).to_bytes(8, "little"), b"", good[:4]]
    lies += [
        b'\x10\x27\0\0\0\0\0\0{"__metadata__":' + b"[" * 9980,
        len(text := b'{"__metadata__":' + b'{"a":' * 200_000).to_bytes(8, "little") + text,
        good.replace(b'"shape":[1,240]', b'"shape":[9,999]'),
    ]
    with peak_below(16 << 20):
        for data in lies:
            with pytest.raises(SnapshotError):
                Stream.restore(model, data)


def test_another_model_and_changed_weights_are_told():
    with pytest.raises(SnapshotError, match="of the model '"):
        Stream.restore(model_of("lstm"), taken("gru"))
    model = copy.deepcopy(model_of("maximum"))
    data = Stream(model, 3).snapshot()
    Stream.restore(model, data)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with pytest.raises(SnapshotError, match="of the model '"):
        Stream.restore(model, data)
