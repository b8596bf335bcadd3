"""The folder for Triton: read as Triton reads it, and its contract carried out for mixed sequences."""

import json
import re

import numpy as np
import pytest
from conftest import noise, small_model

from pipeline.exporting.graph import to_graph
from pipeline.exporting.triton import write_triton
from pipeline.model.onnx_model import OnnxModel

BLOCK = 1600


def parsed(text):
    """A protobuf's text as nested mappings of lists."""
    tokens = iter(re.findall(r'"(?:[^"\\]|\\.)*"|[\w./-]+|[{}\[\]:,]', text))

    def value(token):
        if token == "{":
            return message()
        if token == "[":
            return [json.loads(token) for token in iter(tokens.__next__, "]") if token != ","]
        return json.loads(token) if re.match(r'["\d-]', token) else token

    def message():
        found = {}
        for name in tokens:
            if name == "}":
                break
            token = next(tokens)
            found.setdefault(name, []).append(value(next(tokens) if token == ":" else token))
        return found

    return message()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    model = small_model("head=max", "cell=lstm", "encoder.hidden=12")
    (folder / "model.onnx").write_bytes(to_graph(model, BLOCK, None))
    config, graph = write_triton(folder)
    assert graph.parent.name == "1" and graph.parent.parent == config.parent
    return parsed(config.read_text()), OnnxModel(graph)


def test_it_names_all_that_the_graph_has(served):
    config, graph = served
    (batching,) = config["sequence_batching"]
    states = [(state["input_name"][0], state["output_name"][0]) for state in batching["state"]]
    named = [one["name"][0] for one in [*config["input"], *batching["control_input"]]]
    assert [*named, *(before for before, _ in states)] == graph.inputs
    outputs = [one.name for one in graph.session.get_outputs()]
    assert [config["output"][0]["name"][0], *(after for _, after in states)] == outputs
    assert sorted(graph.inputs[2:]) == graph.inputs[2:] and sorted(outputs[1:]) == outputs[1:]
    for one in (*config["input"], *config["output"], *batching["state"]):
        name = one.get("name", one.get("input_name"))[0]
        known = {each.name: each for each in [*graph.session.get_inputs(), *graph.session.get_outputs()]}[name]
        assert one["dims"] == [known.shape[1:]] and one["data_type"] == ["TYPE_FP32"]
    labels = config["parameters"][0]["value"][0]["string_value"][0]
    assert json.loads(labels) == graph.labels


def test_sequences_that_begin_and_end_at_any_time_keep_apart(served):
    """As Triton batches: whichever sequences have a request, their states as they were put out, else garbage."""
    config, graph = served
    (batching,) = config["sequence_batching"]
    rng, waves = np.random.default_rng(0), [noise(BLOCK * 6, seed) for seed in range(5)]
    states, at, found = {}, [0] * 5, [[] for _ in waves]
    while ready := [k for k in range(5) if at[k] < 6]:
        batch = rng.permutation(ready)[: rng.integers(1, 4)]
        feed = {"sound": np.stack([waves[k][at[k] * BLOCK :][:BLOCK] for k in batch])}
        feed["start"] = np.array([[float(at[k] == 0)] for k in batch], np.float32)
        for state in batching["state"]:
            (name,), (after,), (dims,) = state["input_name"], state["output_name"], state["dims"]
            garbage = np.full(dims, np.nan, np.float32)
            feed[name] = np.stack([states[k][after] if at[k] else garbage for k in batch])
        names = [one.name for one in graph.session.get_outputs()]
        outputs = dict(zip(names, graph.session.run(names, feed)))
        for row, k in enumerate(batch):
            states[k] = {name: array[row] for name, array in outputs.items()}
            found[k].append(outputs["posteriors"][row])
            at[k] += 1
    for wave, posteriors in zip(waves, found):
        expected, _ = graph.advance((wave[None],), graph.begin(1))
        assert np.abs(np.concatenate(posteriors) - expected[0]).max() <= 1e-6
