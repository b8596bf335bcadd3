"""The plan of the house, read from the sources: who imports whom, and how large rooms and functions are."""

import ast
import importlib.util
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

# A file may import only from floors above it in this list. A folder's name with a slash stands for all its files, which
# share a floor, so that none imports a sibling.
PLAN = """
pipeline                disk errors text
pipeline/compiled       lean
pipeline/output         bar
pipeline/reading        nursery part sniff

pipeline                build
pipeline/reading        foreign

pipeline/reading        container

pipeline                events stage
pipeline/capture        camera pace
pipeline/compiled       fused numerics tape
pipeline/layers         precision
pipeline/measures       calibration metrics uncertainty
pipeline/output         display journal
pipeline/reading        ahead media picture truths
pipeline/report         machine page
pipeline/streaming      interrupts
pipeline/training       averages devices losses progress schedule

pipeline                intake sink
pipeline/capture        grabbers
pipeline/compiled       passes writer
pipeline/layers         fuse standardize unroll
pipeline/measures       accuracy
pipeline/output         overlay
pipeline/reading        listing video
pipeline/report         charts runs
pipeline/training       acoustics checkpoint recordings space

pipeline                extractor sample source
pipeline/capture        ring
pipeline/compiled       kernels
pipeline/jobs           ledger
pipeline/output         fanout outbox panel screen video_writer
pipeline/reading        tracks
pipeline/streaming      golden guard

datasets                scenes
pipeline                augmentation cell flow pixels spectral
pipeline/capture        timeline
pipeline/jobs           tally
pipeline/reading        decoding
pipeline/training       feed warp

pipeline                conv_cell
pipeline/augmentations  pictures sound
pipeline/capture        live recorder together
pipeline/layers         layouts
pipeline/reading        decoders

datasets                clips motion shard_index tar
pipeline                cells/ extractors/ heads smoothing
pipeline/augmentations  both
pipeline/layers         convolution recurrent stem

datasets                packing shard_contents splits

entry                   datasets/
pipeline                encoder

pipeline                model

pipeline/streaming      snapshot

pipeline                sinks/ sources/ stream
pipeline/report         exhibits summary sweep
pipeline/streaming      tiles
pipeline/training       features

pipeline/jobs           batch job
pipeline/measures       cost evaluation hearing
pipeline/streaming      listen scheduler selftest
pipeline/training       run sweep

pipeline                engine
pipeline/measures       detection thresholds
pipeline/report         training
pipeline/training       lesson pretrained

pipeline                trainer
pipeline/report         comparison results

pipeline                engines/
pipeline/report         __main__

conf                    launch

entry                   infer train
"""


def read(plan):
    """The modules of each floor."""
    for floor in plan.strip().split("\n\n"):
        rows = [line.split() for line in floor.splitlines()]
        yield {
            ".".join([*([] if room == "entry" else room.split("/")), name.rstrip("/")])
            for room, *names in rows
            for name in names
        }


FLOORS = list(read(PLAN))
ROOMS = ("pipeline", "datasets", "conf")
FILES = [*sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")), ROOT / "train.py", ROOT / "infer.py"]
DEVICES = {"sounddevice", "cv2"}
FOUNDATIONS = {
    "__init__",
    "clips",
    "motion",
    "scenes",
    "tar",
    "shard_index",
    "shard_contents",
    "packing",
    "splits",
}  # of datasets


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor(name):
    for number, rooms in enumerate(FLOORS):
        if name in rooms:
            return number
    for number, rooms in enumerate(FLOORS):
        if name.rpartition(".")[0] in rooms:
            return number
    return None


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def code_lines(path):
    """Lines without blanks, comments and docstrings."""
    tree = ast.parse(path.read_text())
    documented = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(path.read_text().splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in documented for n, line in lines)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_go_downward(path):
    own = floor(module(path))
    if path.name == "__init__.py":
        assert not list(imports(ast.parse(path.read_text()))), "a folder's __init__ holds no code"
        return
    assert own is not None, f"{module(path)} stands on no floor; say in PLAN where it belongs"
    for name in imports(ast.parse(path.read_text())):
        if name.split(".")[0] in {"pipeline", "datasets", "conf", "train", "infer"}:
            assert floor(name) is not None and floor(name) < own, f"{module(path)} imports {name}"
            assert not (name.startswith("datasets") and module(path).startswith("pipeline"))


def test_the_library_does_not_know_hydra():
    for path in FILES:
        if module(path) != "conf.launch":
            names = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
            assert not names & {"hydra", "omegaconf"}, module(path)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_rooms_and_functions_are_small(path):
    assert code_lines(path) <= 300
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 60, f"{node.name} in {module(path)}"


def test_device_libraries_are_imported_where_they_are_needed():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert not {name.split(".")[0] for name in imports(node)} & DEVICES, module(path)


def test_datasets_is_ours():
    spec = importlib.util.find_spec("datasets")
    assert Path(spec.origin).resolve() == ROOT / "datasets" / "__init__.py"


def test_every_component_file_has_a_yaml_and_the_reverse():
    for folder, group in (("pipeline/extractors", "extractor"), ("datasets", "dataset"),
                          ("pipeline/sources", "source"), ("pipeline/sinks", "sink")):  # fmt: skip
        files = {path.stem for path in (ROOT / folder).glob("*.py")} - FOUNDATIONS
        assert files == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}, folder


def test_every_cell_class_has_a_yaml_and_the_reverse():
    """A family of cells shares a file, so here it is the classes that count."""
    classes = {
        f"{module(path)}.{node.name}"
        for path in (ROOT / "pipeline" / "cells").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    yamls = [OmegaConf.load(path)["_target_"] for path in (ROOT / "conf" / "cell").glob("*.yaml")]
    assert classes == set(yamls)


def test_no_address_and_no_machine_path():
    for path in [*ROOT.glob("*.txt"), *ROOT.glob("*.toml"), ROOT / "Makefile", *ROOT.glob("conf/**/*.yaml")]:
        text = path.read_text()
        text = text.replace("rtsp://camera.local/stream", "").replace("udp://127.0.0.1:5000", "")  # examples for people
        assert "://" not in text and "--index" not in text and "find-links" not in text, path.name
