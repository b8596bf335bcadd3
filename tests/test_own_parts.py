"""Parts of the user's own, outside of the clone: what docs/own_parts.md shows is what is run here."""

import json
import re
import runpy
import shlex
import sys

import pytest
from conftest import ROOT, ran, refused, run, tone_clip

from pipeline.cells.cell import Cell
from pipeline.core.build import allow, build
from pipeline.core.errors import ConfigError, ModelError
from pipeline.model.classifier import load
from pipeline.report.comparison import main as compare

PAGE = (ROOT / "docs" / "own_parts.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (.*python .*)$", PAGE, re.MULTILINE)]
QUICK = ["encoder.hidden=8", "extractor.mels=12", "trainer.epochs=1", "trainer.workers=0", "encoder=recurrent"]


@pytest.fixture(scope="module")
def folder(tones, tmp_path_factory):
    """The files of the page in a folder of the user's own, with a model that was trained by its first command."""
    folder = tmp_path_factory.mktemp("mine")
    for _, name, text in re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    tone_clip(folder / "sound.wav", 440)
    done = command(folder, "run", *QUICK, "dataset=folder", f"dataset.root={tones}", "dataset.cache=null")
    assert done.returncode == 0, done.stderr.decode()
    return folder


def command(folder, last, *more, leave=None):
    """The page's first command with ``last`` in its last word."""
    (_, script, *arguments) = next(one for one in COMMANDS if one[-1].endswith(last) and "CLONE" in one[1])
    arguments = [argument for argument in arguments if argument != leave]
    return run(script.removeprefix("CLONE/"), *arguments, *more, cwd=folder)


def test_a_cell_keeps_the_laws(folder, monkeypatch):
    setting, _, script = next(one for one in COMMANDS if one[-1] == "check_mycells.py")
    assert setting == "PYTHONPATH=CLONE"
    monkeypatch.syspath_prepend(folder)
    runpy.run_path(str(folder / script), run_name="__main__")


def test_a_model_with_a_cell_of_ones_own_needs_its_plugin(folder, monkeypatch):
    assert command(folder, "source.path=sound.wav").returncode == 0
    done = command(folder, "source.path=sound.wav", leave="plugins=[mycells]")
    assert done.returncode == 2 and b"'mycells.Leaky' is no part of Rivulet" in done.stderr
    assert b"needs plugins=[mycells]" in done.stderr
    monkeypatch.setenv("RIVULET_PLUGINS", "mycells")
    ran("infer.py", "checkpoint=run", "source.path=sound.wav", cwd=folder)
    told = json.loads((folder / "run" / "metrics.json").read_text())["settings"]
    assert told["cell"]["share"] == 0.3 and "plugins" not in told


def test_a_yaml_of_ones_own(folder, tones):
    data = ["dataset=folder", f"dataset.root={tones}", "dataset.cache=null"]
    done = command(folder, "run2", *QUICK, *data)
    assert done.returncode == 0, done.stderr.decode()
    config = (folder / "run2" / ".hydra" / "config.yaml").read_text()
    assert "share: 0.3" in config and "gate: sigmoid" in config
    odd = command(folder, "run2", *QUICK, *data, "cell.shre=0.4")
    assert odd.returncode == 2 and b"did you mean 'cell.share'" in odd.stderr, odd.stderr.decode()


def test_a_sink_of_ones_own(folder):
    done = command(folder, "counts.json", "decoder.threshold=0.01", "decoder.release=0.001")
    assert done.returncode == 0, done.stderr.decode()
    assert set(json.loads((folder / "counts.json").read_text())) <= {"high", "low"} and b"listening" in done.stdout
    (folder / "counts.json").unlink()
    alone = command(folder, "counts.json", "sink=[]")
    assert alone.returncode == 0 and not alone.stdout and (folder / "counts.json").is_file(), alone.stderr.decode()


def test_runs_are_compared_from_another_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert compare(["run"]) == 0 and "run" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "message"), [
    ("class Leaky(\n", "SyntaxError: '(' was never closed (broken.py, line 1)"),
    ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name"),
    ("import absent\n", "No module named 'absent'"),
])  # fmt: skip
def test_a_module_that_cannot_be_imported_is_told_in_a_line(tmp_path, text, message):
    (tmp_path / "broken.py").write_text(text)
    told = "cell._target_: 'broken.Leaky' cannot be imported: " + message
    done = refused(told, "train.py", "plugins=[broken]", "cell._target_=broken.Leaky", cwd=tmp_path)
    assert len(done.splitlines()) == 1


def test_from_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RIVULET_PLUGINS", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    leaky = {"_target_": "mycells.Leaky", "share": 0.3}
    with pytest.raises(ModelError, match=r"needs plugins=\[mycells\]"):
        load("run")
    with pytest.raises(ConfigError, match="there is no module 'mycels'"):
        allow("mycels")
    allow("mycells")
    assert load("run").config["cell"]["share"] == 0.3
    assert build(leaky, Cell, at="cell", shape=(3,), hidden=4).share == 0.3
    for key, value, message in (("share", 2, "less than or equal to 1"), ("shere", 0.3, "did you mean 'share'")):
        with pytest.raises(ConfigError, match=message):
            build(leaky | {key: value}, Cell, at="cell", shape=(3,), hidden=4)
    with pytest.raises(ConfigError, match="no such class in mycells; did you mean 'Leaky'"):
        build(leaky | {"_target_": "mycells.Leakey"}, Cell, at="cell", shape=(3,), hidden=4)
    with pytest.raises(ConfigError, match=r"there is no module 'mycells\.py'"):
        allow("mycells.py")
    monkeypatch.setenv("RIVULET_PLUGINS", "mycels")
    with pytest.raises(ConfigError, match=r"^RIVULET_PLUGINS: there is no module 'mycels'"):
        allow()
    monkeypatch.setenv("RIVULET_PLUGINS", "")
    for target in ("mycells.Leaki", "mycells.Cell", "mycells.Any", "mysinks.Tally", "mycells"):
        with pytest.raises(ConfigError):
            build({"_target_": target}, Cell, at="cell", shape=(3,), hidden=4)
    monkeypatch.setenv("RIVULET_PLUGINS", "")
