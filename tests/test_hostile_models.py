"""Hostile model files: each is refused within seconds, or is the same model; nothing that it names is ever run."""

import json
import sys
import time

import pytest
import torch
from conftest import small_model
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.core.errors import ModelError
from pipeline.model.classifier import load
from pipeline.model.file import HEADER, PARTS

GRU = "pipeline.cells.gru.GRU"
NAMES = [
    "pipeline.report.__main__.X", "pipeline.report.comparison.main", "pipeline.__main__.X", "pipeline.core.build.find",
    "pipeline.core.errors.ConfigError", "pipeline.core.journal.Journal", "pipeline.sinks.display.main", "pipeline.X",
    "pipeline.cells.gru.Cell", "pipeline.cells.gru.torch", "pipeline.cells.gru.__dict__", "pipeline.cells.gru.__doc__",
    GRU + ".__init__", GRU + ".__class__", GRU + ".", GRU + "\n", GRU + "\0", " " + GRU, "." + GRU, GRU.upper(),
    GRU.replace(".", ".."), GRU.replace(".", "/"), GRU.replace(".", ":"), GRU.replace("p", "\N{CYRILLIC SMALL LETTER ER}"),
    GRU.replace("p", "\N{FULLWIDTH LATIN SMALL LETTER P}"), GRU + "\N{ZERO WIDTH SPACE}", GRU + "\N{COMBINING ACUTE ACCENT}",
    "pipeline.cells...os.system", "pipeline.cells.gru.GRU()", "pipeline.training.trainer.Trainer", "datasets.shards.main",
    "datasets.folder.Folder", "datasets.synthetic_sounds.main", "datasets.evil.X", "datasets.__main__.X", "datasets.X",
    "evil.X", "evil.__main__.X", "evil.sub.X", "conf.launch.Job", "train.train", "infer.infer", "conftest.run", "evil",
    "os.system", "os.path.join", "subprocess.Popen", "builtins.exec", "importlib.import_module", "antigravity.X",
    "this.X", "idlelib.idle.X", "pip.__main__.X", "torch.load", "torch.hub.load", "torch.optim.AdamW", "torch.nn.Linear",
    "torch.utils.collect_env.main", "numpy.load", "pickle.loads", "hydra.utils.instantiate", "pytest.__main__.X",
    "__main__.X", "a" * 100_000, "pipeline.cells." + "a" * 100_000, "", None, 7, True, [GRU], {"_target_": GRU},
]  # fmt: skip
VALUES = [float("nan"), float("inf"), -1, 10**6, 10**12, 10**400, 1e308, "x" * 100_000, [[[[]]]], {"_target_": GRU}]
DEEP = "[" * 10_000 + "]" * 10_000
RAW = [
    "", "null", "[]", "{", '"x"', DEEP, "\ufeff{}", "{}", '{"format": 1}', '{"format": 1, "labels": [], "config": {}}',
    '{"format": 1, "labels": ["a"], "config": {"cell": ' + DEEP + "}}",
    '{"format": 1, "labels": ["a"], "config": ' + '{"a":' * 10_000 + "1" + "}" * 10_001,
    '{"format": ' + "9" * 100_000 + ', "labels": ["a"], "config": {}}',
]  # fmt: skip


every_part = pytest.mark.parametrize("part", [
    pytest.param(part, marks=[] if part in ("cell", "decoder") else [pytest.mark.long]) for part in PARTS
])  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    small_model().save(path)
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return file.metadata()[HEADER], weights


@pytest.fixture
def there(stored, tmp_path, monkeypatch):
    """Opens a model with another header, and looks what that did."""
    for name in ("evil/__init__.py", "evil/__main__.py", "evil/sub.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("open('RUN', 'w')\nclass X: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()} | {"model.safetensors"}
    _, weights = stored

    def opened(header, refused=True):
        save_file(weights, "model.safetensors", {HEADER: header if isinstance(header, str) else json.dumps(header)})
        modules, begun = set(sys.modules), time.monotonic()
        try:
            model = load("model.safetensors")
        except ModelError as error:
            assert str(error).startswith("checkpoint=model.safetensors: ") and len(str(error)) < 1500
        else:
            assert not refused, header
            assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
        assert time.monotonic() - begun < 10, header
        new = {name for name in set(sys.modules) - modules if name.split(".")[0] not in ("torch", "pipeline")}
        assert not new and "pipeline.report.__main__" not in sys.modules
        assert {path.name for path in tmp_path.iterdir()} == before

    return opened


@every_part
def test_a_name_of_no_part_is_refused(stored, there, part):
    for name in NAMES:
        header = json.loads(stored[0])
        header["config"][part]["_target_"] = name
        there(header)


@every_part
def test_any_value_is_refused_or_changes_nothing(stored, there, part):
    for key in json.loads(stored[0])["config"][part]:
        for value in VALUES:
            header = json.loads(stored[0])
            header["config"][part][key] = value
            there(header, refused=False)


def test_headers_of_another_form_are_refused(stored, there):
    for raw in RAW:
        there(raw)
    nested = {"_target_": GRU}
    for _ in range(150):
        nested = {"_target_": "pipeline.encoders.encoder.Encoder", "cell": nested}
    for key, value in {
        "format": [0, -1, "x", None, 10**30, float("nan")], "versions": [[], {"torch": 1}, {"torch": {}}], "more": [1],
        "labels": [[], None, "high", ["a"], [1, 2, 3], ["a"] * 100_000, [["a"]] * 3],
        "config": [None, [], {}, {"cell": {}}, dict.fromkeys(PARTS, nested), {part: {"_target_": GRU} for part in PARTS}],
    }.items():  # fmt: skip
        for one in value:
            there(json.loads(stored[0]) | {key: one})


def test_keys_given_twice_are_those_of_one_model(stored, there):
    there(stored[0][:-1] + ', "format": 1}', refused=False)
    there(stored[0][:-1] + ', "format": 99}')
    there(stored[0].replace('"hidden":16', '"hidden":16,"hidden":17', 1))
    there(stored[0].replace('"cell":{', '"cell":{"_target_":"evil.X",', 1), refused=False)


@pytest.mark.parametrize("size", [100_000_000, 40_000_000, 2**63 - 1, 2**64 - 1])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path, size):
    path, begun = tmp_path / "model.safetensors", time.monotonic()
    with open(path, "wb") as file:
        file.write(size.to_bytes(8, "little") + b"{")
        file.truncate(min(size, 100_000_000) + 8)
    with pytest.raises(ModelError, match=r"a header of .* bytes"):
        load(path)
    assert time.monotonic() - begun < 1


def test_another_package_named_datasets_is_not_imported(stored, there, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    for name in ("__init__", "folder"):
        (tmp_path / "datasets" / f"{name}.py").write_text("open('/proc/self/cwd/RUN', 'w')\nclass Folder: pass\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "datasets"]:
        monkeypatch.delitem(sys.modules, name)
    header = json.loads(stored[0])
    header["config"]["cell"] = {"_target_": "datasets.folder.Folder"}
    with pytest.raises(AssertionError, match="datasets"):  # the folder itself is new; nothing else is
        there(header)
    assert not (tmp_path / "RUN").exists() and "datasets" not in sys.modules
