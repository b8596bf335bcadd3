"""The program that goes with an exported model answers as our own streams do, to the bit, without our libraries."""

import functools
import json
import os
import shutil
import subprocess
import sys
import venv

import numpy as np
import pytest
import soundfile
from conftest import BOTH, EVENTS, PICTURES, lively_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.exporting import rivulet_runtime
from pipeline.exporting.graph import to_graph
from pipeline.exporting.package import write_package
from pipeline.model.onnx_model import OnnxModel
from pipeline.sinks.items import TimedEvent
from pipeline.streaming.stream import Stream

SERIES = ("extractor=values", "extractor.columns=[x,y]", "extractor.rate=50", "encoder=conv_recurrent", "encoder.hidden=12", "head.window=0.4")  # fmt: skip
MODELS = {"pictures": (2, *PICTURES, "head.window=0.4"), "both": (1280, *BOTH), "series": (8, *SERIES)}
BLOCK = 1600  # of sound alone
every_kind = pytest.mark.parametrize(
    "kind", ["sound", "both", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("pictures", "series"))]
)


@pytest.fixture(scope="module")
def graphs(exported, tmp_path_factory):
    """A model's graph, by its kind: as ours, and as the program's."""

    @functools.cache
    def made(kind):
        path = exported / "model.onnx"
        if kind != "sound":
            block, *parts = MODELS[kind]
            model, path = lively_model(*parts, *EVENTS), tmp_path_factory.mktemp(kind) / "model.onnx"
            path.write_bytes(to_graph(model, -(-block // model.grain) * model.grain, None))
        return OnnxModel(path), rivulet_runtime.Model(path)

    return made


def tracks(spec, seconds, seed):
    """Something for a model, of which not all is present."""
    rng = np.random.default_rng(seed)
    grains = int(seconds * spec.rate) // spec.grain
    given = []
    if spec.sound:
        given.append(noise(grains * spec.grain, seed) * rng.choice([1, 30], grains * spec.grain))
    if spec.picture:
        flat = rng.integers(256, size=(grains, 1, 1, 3), dtype=np.uint8)
        given.append(np.broadcast_to(flat, (grains, spec.picture.height, spec.picture.width, 3)).copy())
    if spec.series:
        rows = rng.choice([-8.0, np.nan, np.inf, 3.0], (grains, 2)) + rng.standard_normal((grains, 2))
        given.append(rows.astype(np.float32))
    if spec.both:
        given.append(rng.integers(2, size=(grains, 2)).astype(np.float32))
    return tuple(given)


def told_by_ours(model, parts):
    stream = Stream(model, model.unit // model.hop)
    events, answers = stream.push(parts), [stream.posteriors]
    events += stream.close()
    rows = [TimedEvent.of(event, model.rate).row() for event in events]
    return np.concatenate([*answers, stream.posteriors]), rows


@every_kind
@settings(max_examples=12)
@given(seed=st.integers(0, 99), cuts=st.lists(st.floats(0, 1), max_size=9), seconds=st.floats(0, 4))
def test_any_chunks_and_restores_give_the_bits_of_our_streams(graphs, kind, seed, cuts, seconds):
    ours, theirs = graphs(kind)
    parts = tracks(ours.spec, seconds, seed)
    expected, events = told_by_ours(ours, parts)
    stream, found, told = rivulet_runtime.Stream(theirs), [], []
    for cut in [*sorted(cuts), 1.0]:
        until = int(cut * ours.spec.ticks(parts)) // ours.spec.grain * ours.spec.grain
        piece = ours.spec.cut(ours.spec.cut(parts, until)[0], stream.ticks)[1]
        told += stream.push(*piece)
        found.append(stream.posteriors)
        stream = rivulet_runtime.Stream.restore(theirs, stream.snapshot())
    told += stream.close()
    posteriors = np.concatenate([*found, stream.posteriors])
    assert posteriors.dtype == expected.dtype and np.array_equal(posteriors, expected)
    assert told == events


@every_kind
def test_its_models_make_events(graphs, kind):
    assert told_by_ours(graphs(kind)[0], tracks(graphs(kind)[0].spec, 4, 1))[1]


def test_what_is_no_sound_is_taken_as_our_guard_takes_it(graphs):
    ours, theirs = graphs("sound")
    wave = noise(16000)
    wave[[50, 600, 3000]], wave[[51, 700]], wave[8000:8200] = np.nan, [np.inf, -40], 1e-40
    stream = rivulet_runtime.Stream(theirs)
    stream.push(wave)
    first = stream.posteriors
    stream.close()
    assert np.array_equal(np.concatenate([first, stream.posteriors]), told_by_ours(ours, (wave,))[0])


@pytest.mark.parametrize("blocks", [1, 60])
def test_a_step_that_fails_leaves_the_state(graphs, blocks):
    ours, theirs = graphs("sound")
    wave = noise(BLOCK * 80)
    one, other = Stream(ours, ours.unit // ours.hop), rivulet_runtime.Stream(theirs)
    for k in range(80):
        failing = 5 <= k < 5 + blocks
        with pytest.MonkeyPatch.context() as patch:
            if failing:
                patch.setattr(one.bound, "run", lambda rows, run=one.bound.run: run(rows) or one.bound.y.fill(np.nan))
                patch.setattr(theirs, "step", lambda x, state, run=theirs.step: [run(x, state)[0] * np.nan, *state])
            for stream in one, other:
                stream.push(wave[BLOCK * k : BLOCK * (k + 1)])
        assert np.array_equal(one.posteriors, other.posteriors)
    assert all(np.array_equal(a, b) for a, b in zip(one.state, other.state))


SOUND, SHOWN, MARKS = np.zeros(640, np.float32), np.zeros((1, 8, 12, 3), np.uint8), np.ones((1, 2))
BAD = {
    "numbers of another type": ("sound", (np.zeros(9, np.int16),), "got sound as int16"),
    "two channels": ("sound", (np.zeros((9, 2)),), r"got sound as float64 \(9, 2\)"),
    "pictures of another size": ("both", (SOUND, SHOWN[:, 1:], MARKS), r"expected uint8 \(N, 8, 12, 3\)"),
    "pictures as floats": ("both", (SOUND, SHOWN / 2, MARKS), "got picture as float64"),
    "one track of three": ("both", (SOUND,), "argument"),
    "unequal tracks": ("both", (SOUND[1:], SHOWN, MARKS), "same time"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_refused_and_changes_nothing(graphs, case):
    kind, given_, message = BAD[case]
    stream = rivulet_runtime.Stream(graphs(kind)[1])
    before = stream.snapshot()
    with pytest.raises(ValueError, match=message):
        stream.push(*given_)
    assert stream.snapshot() == before


def test_a_closed_stream_takes_no_more(graphs):
    stream = rivulet_runtime.Stream(graphs("sound")[1])
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.push(noise(9))


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_one_byte_is_enough_to_refuse_a_file(graphs, tmp_path, position):
    data = bytearray(graphs("sound")[0].path.read_bytes())
    data[position] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ValueError, match="digest"):
        rivulet_runtime.Stream(tmp_path / "model.onnx")


def test_snapshots_of_other_models_and_damaged_ones_are_refused(graphs):
    stream = rivulet_runtime.Stream(graphs("sound")[1])
    stream.push(noise(1000))
    data = stream.snapshot()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for model, bytes_, message in (
        ("both", data, "of model"),
        ("sound", data[:-9], "damaged"),
        ("sound", changed, "damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            rivulet_runtime.Stream.restore(graphs(model)[1], bytes(bytes_))


def heard(graphs, tmp_path, python=sys.executable, **options):
    """A folder as the exporter leaves it, and what its program prints of a wav and of the same as a pipe."""
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copy(graphs("sound")[0].path, folder)
    files = write_package(folder)
    wave = np.round(tracks(graphs("sound")[0].spec, 3, 2)[0].clip(-1, 1) * 32767).astype(np.int16)
    soundfile.write(folder / "a.wav", wave, 16000, "PCM_16")
    command = [str(python), "-I", str(files[1]), "model.onnx"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for source, data in ("a.wav", None), ("-", wave.astype("<i2").tobytes()):
        done = subprocess.run([*command, source], cwd=folder, input=data, capture_output=True, env=env, timeout=120)
        assert not done.returncode, done.stderr.decode()
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert rows == told_by_ours(graphs("sound")[0], (wave.astype(np.float32) / 32768,))[1] and rows
    return folder, command


def test_command_line(graphs, tmp_path):
    folder, command = heard(graphs, tmp_path)
    card = json.loads((folder / "model.json").read_text())
    assert card["labels"] == ["background", "high", "low"] and card["inputs"][0]["shape"][1:] == [BLOCK]
    soundfile.write(folder / "b.wav", np.zeros(100), 8000, "PCM_16")
    done = subprocess.run([*command, "b.wav"], cwd=folder, capture_output=True, timeout=120)
    assert done.returncode == 1 and b"ffmpeg -i b.wav -c:a pcm_s16le -ar 16000 NEW.wav" in done.stderr


@pytest.mark.long
def test_it_needs_numpy_and_onnxruntime_alone(graphs, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime"], check=True, timeout=600)
    heard(graphs, tmp_path, python)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, check=True).stdout.decode()
    assert not {"torch", "pydantic"} & {line.split()[0] for line in listed.splitlines()}
