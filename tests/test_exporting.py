"""Models as ONNX graphs: they answer as torch does, keep every promise of streams, and are refused when they cannot."""

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import BOTH, ROOT, listen, lively_model, noise, options, ran, small_model
from onnxruntime import InferenceSession
from safetensors.numpy import save_file

from pipeline.core.errors import ConfigError, ModelError, SnapshotError
from pipeline.exporting.__main__ import main
from pipeline.exporting.export import TOLERANCE, export, prove
from pipeline.exporting.graph import to_graph
from pipeline.model.classifier import load
from pipeline.model.file import HEADER, identify_file
from pipeline.model.onnx_model import SEAL_BYTES, Card, OnnxModel, seal
from pipeline.model.open import open_model
from pipeline.streaming.scheduler import Scheduler
from pipeline.streaming.state_batch import full_block
from pipeline.streaming.stream import Stream

SMALL = ("encoder.hidden=12", "head.window=0.2", "head.live=0.2", "decoder.threshold=0.4", "decoder.minimum=0")
SOUND = ("encoder=recurrent", "extractor.mels=12", *SMALL)
IMAGES = ("encoder=image_recurrent", "extractor.height=16", "extractor.width=20", *SMALL)
DENSE = [name for name in options("cell") if not name.startswith("conv_")]
MODELS = {
    **{name: (f"cell={name}", *SOUND) for name in DENSE},
    **{name: ("extractor=frames", f"cell={name}", *IMAGES) for name in options("cell") if name.startswith("conv_")},
    "spectral": ("encoder=spectral_recurrent", "extractor.mels=16", *SMALL),
    "convolutions": ("encoder=conv_recurrent", "extractor.mels=12", "cell=gru", *SMALL),
    "mfcc": ("extractor=mfcc", "encoder=recurrent", "head=max", *SMALL),
    "waveform": ("extractor=waveform", "encoder=recurrent", "head=last", "encoder.hidden=12"),
    "texture": ("extractor=texture", "encoder=recurrent", *SMALL),
    "frame_cnn": ("extractor=frame_cnn", "extractor.height=32", "extractor.width=32", "encoder=recurrent", *SMALL),
    "frame_difference": ("extractor=frame_difference", "cell=conv_gru", *IMAGES),
    "both": (*BOTH, *SMALL),
    "since the start": ("encoder=recurrent", "extractor.mels=12", "head=max", "head.window=null", "encoder.hidden=12"),
    "layer norm": ("cell=lstm", "cell.layer_norm=true", *SOUND),
    "learnt beginning": ("cell=gru", "cell.learn_initial=true", *SOUND),
    "tags": ("task=tags", "smoothing=ema", *SOUND),
    "delay": ("head.delay=0.05", *SOUND),
    "series": ("extractor=values", "extractor.columns=[x,y]", "extractor.rate=50", "encoder=conv_recurrent", *SMALL),
}


def graph_of(model, folder, seconds=0.05):
    """The model's graph, read back."""
    block = -(-max(1, round(seconds * model.rate / model.hop)) * model.hop // model.grain) * model.grain
    path = folder / "model.onnx"
    path.write_bytes(to_graph(model, block, None))
    return OnnxModel(path)


@pytest.fixture(scope="module")
def both(exported):
    """The model, and its graph."""
    return load(exported / "model.safetensors"), OnnxModel(exported / "model.onnx")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] * (name != "conv_lstm")) for name in MODELS
])  # fmt: skip
def test_a_graph_answers_as_torch_does(name, tmp_path):
    """In batches of several sizes, over fifty blocks, from memories that are not finite; with standard operators."""
    model = lively_model(*MODELS[name], labels="abc", times=1.2)
    block = full_block(model, model.grain, 1, np.random.default_rng(0))
    before, _ = model.advance(block, model.begin(1))
    graph = graph_of(model, tmp_path)
    assert prove(model, graph) <= TOLERANCE
    assert np.array_equal(model.advance(block, model.begin(1))[0], before), "what is traced belongs to the graph alone"
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto)
    assert {one.domain for one in proto.opset_import} == {""} and not proto.functions
    assert [one.name for one in proto.graph.output][1:] == [f"next_{k:02}" for k in range(len(graph.begin(1)))]


def test_a_graph_carries_what_a_wish_promises(both):
    model, graph = both
    assert graph.promise == model.promise and "90.0% of 50 events found" in str(graph.promise)
    assert Card.model_validate(graph.card.model_dump(exclude={"promise"})).promise is None, "an older one"


@pytest.mark.parametrize("extractor", ["optical_flow", "moving_region", "motion_statistics"])
def test_what_another_library_computes_is_refused_by_name(extractor):
    model = lively_model(f"extractor={extractor}", "encoder.hidden=8", labels="ab")
    with pytest.raises(ConfigError, match=r"extractor: \w+ is computed by another library"):
        to_graph(model, model.grain, None)


@pytest.mark.long
@pytest.mark.parametrize("extractor", ["spectrum_picture", "voice"])
def test_what_others_have_learnt_is_exported_for_any_batch(extractor):
    model = lively_model(f"extractor={extractor}", "encoder=recurrent", "encoder.hidden=8", labels="ab")
    assert to_graph(model, model.grain, None)


def test_streams_scheduler_and_batches_agree_to_the_bit(both):
    """However the sound is cut, with a restore between, and whoever shares the batch."""
    model, graph = both
    wave, rng = noise(16000 * 3 + 77), np.random.default_rng(0)
    whole, events, _ = listen(Stream(graph), [wave])
    assert events and np.abs(whole - listen(Stream(model), [wave])[0]).max() <= TOLERANCE
    for _ in range(5):
        cuts = np.sort(rng.integers(0, len(wave), 20))
        stream, found = Stream(graph), []
        for number, piece in enumerate(np.split(wave, cuts)):
            stream.push(piece)
            found.append(stream.posteriors)
            if number % 5 == 4:
                stream = Stream.restore(graph, stream.snapshot())
        stream.close()
        assert np.array_equal(np.concatenate([*found, stream.posteriors]), whole)
    scheduler = Scheduler(graph)
    streams = [Stream(graph) for _ in range(9)]
    for number, stream in enumerate(streams):
        scheduler.join(stream)
        scheduler.feed(stream, noise(16000 + 999 * number, number))
    heard = {stream: [] for stream in streams}
    while answers := scheduler.turn():
        for answer in answers:
            heard[answer.stream].append(answer.posteriors)
    for number, stream in enumerate(streams):
        alone = listen(Stream(graph), [noise(16000 + 999 * number, number)])[0]
        found = np.concatenate(heard[stream])
        assert scheduler.batch.sizes[0] > 1 or np.array_equal(found, alone[: len(found)])
        assert np.abs(found - alone[: len(found)]).max() <= TOLERANCE


def test_a_snapshot_says_what_computed_it_and_the_other_engine_goes_on(both):
    model, graph = both
    wave = noise(32000)
    stream = Stream(graph)
    stream.push(wave[:16000])
    data = stream.snapshot()
    assert b'"engine":"onnx"' in data.replace(b"\\", b"")
    with pytest.warns(UserWarning, match="of a stream computed by onnx, which goes on by torch"):
        other = Stream.restore(model, data)
    for one in (stream, other):
        one.push(wave[16000:])
    assert np.abs(stream.posteriors - other.posteriors).max() <= TOLERANCE
    with pytest.raises(SnapshotError, match="of the model"):
        Stream.restore(small_model(), data)


def test_a_graph_is_opened_only_for_what_it_can_do(exported, capsys, tmp_path):
    graph = OnnxModel(exported / "model.onnx")
    assert graph.identity(window=False) == identify_file(exported / "model.safetensors")
    opened, path = open_model(str(exported))
    assert isinstance(opened, OnnxModel) and path == exported / "model.safetensors" and not capsys.readouterr().err
    assert isinstance(open_model(str(exported / "model.onnx"))[0], OnnxModel)
    for settings, told in (
        ({"block": 0.05}, r"block: 0\.05 s; model\.onnx computes 0\.1 s at a time"),
        ({"window": 0.7}, r"window=0\.7: model\.onnx pools 0\.3 s"),
        ({"precision": "bf16"}, "for device=cpu and precision=fp32"),
    ):
        with pytest.raises(ConfigError, match=told):
            open_model(str(exported), "onnx", **settings)
        assert not isinstance(open_model(str(exported), **settings)[0], OnnxModel)  # torch
        told = capsys.readouterr().err  # who asks for bf16 asks for torch
        assert ("note: computing with torch: " in told) == ("precision" not in settings)
    small_model().save(tmp_path / "model.safetensors")
    open_model(str(tmp_path))
    assert not capsys.readouterr().err, "nobody asked for a graph"
    with pytest.raises(ModelError, match=r"no such file; write it again with `python -m pipeline\.exporting RUN`"):
        open_model(str(tmp_path), "onnx")
    (tmp_path / "model.onnx").write_bytes((exported / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match="not of the weights beside it"):
        open_model(str(tmp_path), "onnx")
    save_file({}, tmp_path / "model.safetensors", {HEADER: '{"format": 1, "labels": [], "config": {}}'})
    with pytest.raises(ModelError, match="not a whole model"):
        open_model(str(tmp_path), "onnx")
    with pytest.raises(ConfigError, match="compute=torch needs the weights"):
        open_model(str(exported / "model.onnx"), "torch")


def carded(data, **change):
    """A graph with another card."""
    proto = onnx.load_model_from_string(data)
    proto.metadata_props[0].value = json.dumps(json.loads(proto.metadata_props[0].value) | change)
    del proto.metadata_props[1:]
    return seal(proto.SerializeToString())


@pytest.mark.parametrize("gated", [False, True])
def test_a_graph_of_clips_takes_no_streams_past_the_gate(both, tmp_path, gated):
    """Nor one of streams whole clips behind it, though both pool the same seconds."""
    config = both[1].config | {"gate": {"threshold": 0.5}}
    (tmp_path / "model.onnx").write_bytes(carded(both[1].path.read_bytes(), gated=gated, config=config))
    told = "streams, behind the gate" if gated else "whole clips, without the gate"
    with pytest.raises(ConfigError, match=rf"model\.onnx is for {told}"):
        open_model(str(tmp_path / "model.onnx"), live=not gated)


def test_damaged_and_strange_graphs_are_refused(exported, tmp_path):
    good = (exported / "model.onnx").read_bytes()
    body, rng = good[:-SEAL_BYTES], np.random.default_rng(0)
    card = json.loads(onnx.load_model_from_string(good).metadata_props[0].value)
    first, *others = card["states"]
    path = tmp_path / "bad.onnx"

    def refused(data, told):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=told):
            OnnxModel(path)

    for place in rng.integers(0, len(body), 30):
        refused(
            body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :] + good[-SEAL_BYTES:], "its digest is another"
        )
    for size in (0, 10, len(good) // 2, len(good) - 1):
        refused(good[:size], "no graph of Rivulet, or not a whole one")
    refused(seal(b"nonsense"), "onnxruntime refuses it")
    for change, told in (
        ({"format": 99}, "a graph of format 99; this version reads 1"),
        ({"hop": -1}, "its card is not right"),
        ({"states": card["states"][:-1]}, r"the graph takes \('tensor\(float\)', \[1\]\) as number \d; expected None"),
        ({"strange": 1}, "its card is not right"),
        ({"states": [{**first, "shape": [1 << 40]}, *others]}, "a stream would take more than"),
        ({"states": [{**first, "shape": [241]}, *others]}, r"expected \('tensor\(float\)', \[241\]\)"),
        ({"states": [{**first, "type": "object"}, *others]}, "its card is not right"),
        ({"states": [{**first, "initial": "AAAA"}, *others]}, "its card is not right"),
        ({"states": [{**first, "initial": math.nan}, *others]}, "a memory begins with NaN"),
        ({"labels": [*card["labels"], "more"], "golden": []}, r"gives .* expected .*\[10, 4\]"),
        ({"golden": [[0.5]]}, "its golden answers are not of 3 labels"),
        ({"block": 1}, "a block of 1 ticks"),
        ({"delay": -1}, "its card is not right"),
        ({"spec": {"sound": 0, "picture": None}}, "a block of"),
        ({"spec": {"sound": 16000, "picture": {"rate": 0, "height": 8, "width": 8}}}, "its card is not right"),
        ({"spec": {"sound": None, "picture": {"rate": 10, "height": 8, "width": 8}}}, "the graph takes"),
        ({"config": {"head": {}}}, "config lacks cell, decoder"),
        ({"config": card["config"] | {"decoder": {"_target_": "os.system"}}}, "its decoder is not right"),
    ):
        refused(carded(good, **change), told)
    proto = onnx.load_model_from_string(good)
    del proto.metadata_props[:]
    refused(seal(proto.SerializeToString()), "a graph of format None")


def test_other_processes_can_have_a_graph(exported, tmp_path):
    """As it was changed, also where its file is not."""
    path = tmp_path / "model.onnx"
    path.write_bytes((exported / "model.onnx").read_bytes())
    graph = OnnxModel(path)
    graph.config["decoder"]["threshold"] = 0.9
    path.unlink()
    other = pickle.loads(pickle.dumps(graph))
    assert other.config == graph.config
    assert np.array_equal(listen(Stream(other), [noise(8000)])[0], listen(Stream(graph), [noise(8000)])[0])


def test_without_onnxruntime_torch_goes_on(exported, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime, or compute=torch"):
        open_model(str(exported), "onnx")
    assert not isinstance(open_model(str(exported))[0], OnnxModel)


def test_a_run_tells_the_time_of_the_step_that_streams_compute(trained):
    metrics, graph = json.loads((trained / "metrics.json").read_text()), OnnxModel(trained / "model.onnx")
    assert metrics["step"]["chunk"] == graph.unit / graph.rate == 2 * graph.hop / graph.rate  # torch: one step
    assert 0 < metrics["step"]["p50_ms"] <= metrics["step"]["p99_ms"]
    assert [*metrics["export"]["bytes"]] == ["model.onnx", "clips.onnx"]


def test_infer_needs_no_torch(trained, tones, tmp_path):
    """A file as a stream, and files as a batch, in a process that cannot import it."""
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['infer.py', *sys.argv[1:]];"
        "runpy.run_path('infer.py', run_name='__main__')"
    )
    clip = tones / "low" / "0.wav"
    for source in ([f"source.path={clip}"], ["source=files", f"source.paths={tones}", "source.workers=1"]):
        given = [f"checkpoint={trained}", "compute=onnx", *source, "sink=jsonl"]
        command = [sys.executable, "-c", code, *given, f"sink.jsonl.path={tmp_path / 'out.jsonl'}"]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stderr.decode()


def test_both_engines_tell_the_same_of_files(trained, tones):
    def labels(compute):
        source = ["source=files", f"source.paths={tones}", "sink=jsonl"]
        done = ran("infer.py", f"checkpoint={trained}", f"compute={compute}", *source)
        rows = map(json.loads, done.stdout.decode().splitlines())
        return {row["path"]: row["label"] for row in rows if "path" in row}

    assert labels("onnx") == labels("torch") and len(labels("onnx")) == 24


def test_the_command_writes_graphs_anywhere(exported, tmp_path, capsys):
    assert main([str(exported), str(tmp_path / "out"), "--block", "0.2"]) == 0, capsys.readouterr().err
    graph = OnnxModel(tmp_path / "out" / "model.onnx")
    assert graph.unit == round(0.2 * graph.rate / graph.hop) * graph.hop
    assert main([str(tmp_path)]) == 2 and "a folder without model.safetensors" in capsys.readouterr().err


def test_a_graph_that_answers_otherwise_is_not_proven(both):
    with pytest.raises(ModelError, match="nothing was written"):
        prove(*both, -1.0)


@pytest.mark.parametrize("two", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_model_of_which_one_graph_is_not_proven_leaves_no_file(two, exported, tmp_path, monkeypatch):
    """Nor does the first of two, nor one that answers NaN."""
    model, run = small_model() if two else load(exported / "model.safetensors"), InferenceSession.run
    if not two:  # its graph was made before
        monkeypatch.setattr("pipeline.exporting.export.to_graph", lambda *_: (exported / "model.onnx").read_bytes())

    def spoilt(session, names, given):
        y, *after = run(session, names, given)
        card = json.loads(session.get_modelmeta().custom_metadata_map["rivulet"])
        return [y * np.nan if card["config"]["head"]["window"] == card["clip_window"] else y, *after]

    monkeypatch.setattr(InferenceSession, "run", spoilt)
    with pytest.raises(ModelError, match=r"differ by inf .*nothing was written"):
        export(model, tmp_path)
    assert not [*tmp_path.iterdir()]
