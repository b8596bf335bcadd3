"""The plan of the house, held against the code's own imports (``house.py`` measures them)."""

import ast
import graphlib
import importlib
import importlib.util
from pathlib import Path

import pytest
from conftest import ROOT
from house import ROOMS, arrows, code_lines, files, imports, module, room_of, tree
from omegaconf import OmegaConf

from pipeline.batch.engine import Engine
from pipeline.cells.cell import Cell
from pipeline.extractors.extractor import Extractor
from pipeline.sinks.fanout import Fanout
from pipeline.sinks.sink import Sink
from pipeline.sources.source import Source
from pipeline.tasks.task import Task

FILES = files()
DEVICES = {"sounddevice", "cv2"}
GROUPS = ("cell", "extractor", "dataset", "source", "sink", "engine", "task")
TARGETS = {
    OmegaConf.load(path)["_target_"]: path for group in GROUPS for path in (ROOT / "conf" / group).glob("*.yaml")
}


def test_rooms_import_only_what_the_table_allows():
    for arrow in arrows():
        assert arrow.other in ROOMS[arrow.room].split(), f"{arrow.path.relative_to(ROOT)} imports {arrow.module}"


def test_the_table_only_goes_up():
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        for other in allowed.split():
            assert order.index(other) < order.index(room) or room in ("train", "infer"), (room, other)
    assert {room_of(module(path)) for path in FILES} - {"pipeline"} == set(ROOMS)


def test_no_files_import_each_other():
    names = {module(path) for path in FILES}
    graph = {module(path): set(imports(tree(path))) & names for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names them


def test_kinds_do_not_import_each_other():
    kinds = {target.rpartition(".")[0] for target in TARGETS}
    for path in FILES:
        if module(path) in kinds and module(path) not in ("pipeline.batch.ray", "pipeline.batch.local"):
            others = {name for name in imports(tree(path)) if room_of(name) == room_of(module(path))}
            assert not others & kinds, module(path)


def test_a_folders_init_holds_no_code():
    for path in FILES:
        if path.name == "__init__.py":
            assert not list(imports(tree(path))), module(path)


def test_the_library_does_not_know_hydra():
    for path in FILES:
        if not module(path).startswith("conf."):
            names = {name.split(".")[0] for name in imports(tree(path))}
            assert not names & {"hydra", "omegaconf"}, module(path)


def test_files_and_functions_are_small():
    for path in FILES:
        assert code_lines(path) <= 300, module(path)
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{node.name} in {module(path)}"


def test_device_libraries_are_imported_where_they_are_needed():
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert not {name.split(".")[0] for name in imports(node)} & DEVICES, module(path)


def test_datasets_is_ours():
    spec = importlib.util.find_spec("datasets")
    assert Path(spec.origin).resolve() == ROOT / "datasets" / "__init__.py"


def test_a_yaml_names_a_class_where_it_stands():
    for target, path in TARGETS.items():
        name, _, kind = target.rpartition(".")
        assert vars(importlib.import_module(name))[kind].__module__ == name, path


@pytest.mark.parametrize("contract", [Cell, Extractor, Source, Sink, Engine, Task])
def test_every_kind_has_a_yaml(contract):
    for path in (ROOT / contract.__module__.rpartition(".")[0].replace(".", "/")).glob("*.py"):
        importlib.import_module(module(path))
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in leaves(contract) - {Fanout}}  # which is many sinks
    assert {kind for kind in kinds if kind.startswith("pipeline.")} <= TARGETS.keys()


def leaves(kind):
    """The classes below one that nothing of ours is derived from."""
    below = kind.__subclasses__()
    return set().union(*map(leaves, below)) if below else {kind}


def test_no_address_and_no_machine_path():
    for path in [*ROOT.glob("*.txt"), *ROOT.glob("*.toml"), ROOT / "Makefile", *ROOT.glob("conf/**/*.yaml")]:
        text = path.read_text()
        text = text.replace("rtsp://camera.local/stream", "").replace("udp://127.0.0.1:5000", "")  # examples for people
        assert "://" not in text and "--index" not in text and "find-links" not in text, path.name
