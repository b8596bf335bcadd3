"""Smaller weights: the file shrinks, the answers hardly change, and the card says that they are others."""

import numpy as np
import onnx
import pytest
from conftest import noise

from pipeline.exporting.__main__ import main
from pipeline.exporting.weights import TOLERANCES, packed, with_weights
from pipeline.model.classifier import load
from pipeline.model.onnx_model import OnnxModel
from pipeline.streaming.selftest import check

BLOCK = 1600


@pytest.mark.parametrize(("weights", "share", "apart"), [("fp16", 0.85, 1e-3), ("int8", 0.7, 1e-2)])
def test_smaller_weights(exported, tmp_path, weights, share, apart):
    model, whole = load(exported / "model.safetensors"), (exported / "model.onnx").read_bytes()
    data = with_weights(whole, weights, {f"model.{name}" for name, _ in model.named_buffers()})
    assert len(data) < share * len(whole)
    (tmp_path / "small.onnx").write_bytes(data)
    before, after = OnnxModel(exported / "model.onnx"), OnnxModel(tmp_path / "small.onnx")
    wave = noise(BLOCK * 50)[None]
    expected, found = (graph.advance((wave,), graph.begin(1))[0] for graph in (before, after))
    assert 0 < np.abs(found - expected).max() < min(apart, TOLERANCES[weights])
    assert after.identity() == f"{before.identity()}-{weights}"
    check(after, BLOCK // after.hop)  # they have no golden answers that they could miss
    kept = {array.name: array for array in onnx.load_model_from_string(data).graph.initializer}
    filters = kept["model.extractor.filters"]
    assert np.array_equal(onnx.numpy_helper.to_array(filters), model.extractor.filters)


def test_rows_of_int8_keep_their_own_scale():
    values = np.array([[1.0, -2.0], [1e-4, 3e-5], [0.0, 0.0]], np.float32)
    parts, _ = packed("w", values, "int8")
    back = parts["w_int8"].astype(np.float32) * parts["w_scale"]
    assert (np.abs(back - values) <= np.abs(values).max(1, keepdims=True) / 254 + 1e-12).all()


@pytest.mark.long
def test_the_command_compares_labels(trained, tmp_path, capsys):
    assert not main([str(trained), str(tmp_path), "--weights", "int8", "--triton", "--check"])
    assert ", 0 changed" in capsys.readouterr().out
    assert (tmp_path / "triton" / "rivulet" / "config.pbtxt").is_file() and (tmp_path / "rivulet_runtime.py").is_file()


def test_smaller_weights_do_not_stand_beside_the_run(trained, capsys):
    assert main([str(trained), "--weights", "int8"]) and "give a FOLDER" in capsys.readouterr().err
