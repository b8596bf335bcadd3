"""Components from config: the constructor is the schema, and only our own classes are built."""

from collections.abc import Callable
from itertools import zip_longest

import pytest
import torch
from conftest import configured, options

from pipeline.cells.cell import Cell
from pipeline.core.build import arguments_for, build, check, nearest
from pipeline.core.errors import ConfigError
from pipeline.encoders.encoder import Encoder
from pipeline.layers.stage import Stage

GRU = {"_target_": "pipeline.cells.gru.GRU"}


def test_a_nested_component_is_handed_over_as_a_factory():
    config = {"_target_": "pipeline.encoders.encoder.Encoder", "hidden": 5, "cell": GRU}
    encoder = build(config, Stage, at="encoder", shape=(3,))
    assert isinstance(encoder, Encoder) and encoder.out_shape == (5,)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("hiden", 3, r"encoder\.hiden: no such key; did you mean 'hidden'"),
    ("hidden", "abc", r"encoder\.hidden: got 'abc'; .*integer.* Set encoder\.hidden="),
    ("hidden", 0, r"encoder\.hidden: got 0; .*greater than 0"),
    ("dropout", 2.0, r"encoder\.dropout: got 2\.0; .*less than 1"),
    ("convolutions", [{"channels": 3, "kernl": 2}], r"encoder\.convolutions: .*"),
    ("shape", [3], r"encoder\.shape: is computed"),
])  # fmt: skip
def test_wrong_values_are_named(key, value, message):
    config = configured()["encoder"] | {"cell": GRU, key: value}
    with pytest.raises(ConfigError, match=message):
        build(config, Stage, at="encoder", shape=(3,))


@pytest.mark.parametrize("target", [
    "os.system", "pipeline.media.audio.os.system", "pipeline.media.audio.os", "pipeline.model.classifier.load",
    "pipeline.layers.stage.torch.load", "datasets.clips.Path", "subprocess.Popen", "pipeline", "", 7, None,
    "pipeline.no_such.Thing", "pipeline.cells.gru.Cell", "torch.optim.LBFGS",
])  # fmt: skip
def test_only_our_own_classes(target):
    with pytest.raises(ConfigError, match="not allowed"):
        build({"_target_": target}, at="x")


def test_a_class_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="expected a Cell class"):
        build({"_target_": "pipeline.training.trainer.Trainer"}, Cell, at="cell")


def test_what_has_no_default_must_be_set():
    with pytest.raises(ConfigError, match="cell: missing a required argument: 'hidden'"):
        build(GRU, Cell, at="cell", shape=(3,))


def test_a_function_is_a_schema_too():
    def program(*, seed: int, factory: Callable[..., Cell] | None = None) -> None: ...

    assert arguments_for(program, {"seed": "3"}) == {"seed": 3}
    with pytest.raises(ConfigError, match="sed: no such key; did you mean 'seed'"):
        arguments_for(program, {"sed": 3})
    with pytest.raises(ConfigError, match=r"factory\._target_: 'os\.system' is not allowed"):
        check({"factory": {"_target_": "os.system"}})


def test_nearest():
    assert nearest("mells", ["mels", "low"]) == "; did you mean 'mels'?"
    assert nearest("zzz", ["b", "a"]) == "; expected one of: a, b"
    assert nearest("lr", ["trainer.ema", "optimizer.lr"]) == "; did you mean 'optimizer.lr'?"
    assert nearest("zzz", [f"key{number}" for number in range(200)]) == ""  # which nobody would read


TRAINED = [
    "extractor", "encoder", "cell", "head", "smoothing", "decoder", "task", "gate", "augment", "optimizer", "trainer",
    "sweep", "dataset",
]  # fmt: skip
GROUPS = [("train", TRAINED), ("train", ["experiment"]), ("infer", ["source", "engine", "gate"])]
TOGETHER = [("infer", [f"sink=[{','.join(options('sink'))}]"])] + [  # an option of each group at once
    (program, [f"{group}={option}" for group, option in zip(groups, row) if option])
    for program, groups in GROUPS
    for row in zip_longest(*map(options, groups))
]


@pytest.mark.parametrize(("program", "given"), TOGETHER, ids=str)
def test_every_yaml_composes_and_is_a_valid_call(program, given):
    config = configured(program, *given)
    if "source" in config:
        config["source"] = {key: "x" if value == "???" else value for key, value in config["source"].items()}
    check(config)


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_optimizer_builds(option):
    config = configured("train", f"optimizer={option}")["optimizer"]
    assert build(config, torch.optim.Optimizer, at="optimizer", params=[torch.nn.Parameter(torch.zeros(2, 2))])
