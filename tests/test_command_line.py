"""The command line: Hydra's grammar made easy, whose errors name the key, and folders that belong to one run."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, ran, refused, run

from conf.command_line import arrange, prepare
from conf.launch import new_folder
from pipeline.core.errors import ConfigError
from pipeline.core.journal import open_locked
from pipeline.core.version import VERSION

EXPERIMENT = "# @package _global_\ndefaults:\n  - override /cell: lstm\n"
QUICK = ["trainer.epochs=1", "trainer.workers=0", "encoder=recurrent", "encoder.hidden=8", "extractor.mels=20"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of configuration of one's own: one experiment that is right, and some that are not."""
    folder = tmp_path_factory.mktemp("own") / "with spaces"
    (folder / "experiment").mkdir(parents=True)
    for name, text in {
        "mine.yaml": EXPERIMENT,
        "other.yml": EXPERIMENT,
        "bare.yaml": "trainer:\n  epochs: 1\n",
        "tab.yaml": f"{EXPERIMENT}trainer:\n\tepochs: 1\n",
        "twice.yaml": f"{EXPERIMENT}seed: 1\nseed: 2\n",
        "brace.yaml": f"{EXPERIMENT}name: {{a\n",
        "latin.yaml": f"{EXPERIMENT}name: Müller\n".encode("latin-1"),
    }.items():
        (folder / "experiment" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(("arguments", "message"), [
    (["experiment=mien"], "experiment: there is no 'mien'; did you mean 'mine'?"),
    (["experiment=other"], "Hydra reads .yaml files only; rename"),
    (["experiment=mine", "trainer.epoch=2"], "trainer.epoch: no such key; did you mean 'trainer.epochs'?"),
    (["experiment=keywords", "dataset.scene.alone=1"], "to set it, too, write +dataset.scene.alone=..."),
    (["experiment=mine", "cell=gruu"], "cell: there is no 'gruu'; did you mean 'gru'?"),
    (["experiment=mine", "seed=x"], "seed: got 'x'"),
    (["experiment=bare"], "experiment: its yaml must begin with the line `# @package _global_`"),
    (["experiment=tab"], "tab.yaml, line 5, column 1: found character '\\t'"),
    (["experiment=twice"], "twice.yaml, line 5, column 1: found duplicate key seed"),
    (["experiment=brace"], "brace.yaml, line 5"), (["experiment=latin"], "latin.yaml, line 4: byte 0xfc is not UTF-8"),
])  # fmt: skip
def test_faults_beside_configuration_of_one_s_own_are_one_message(own, arguments, message, tmp_path):
    place = ["--config-dir", str(own)] if len(arguments) == 1 else [f"hydra.searchpath=['file://{own}']"]
    assert len(refused(message, "train.py", *place, *arguments, cwd=tmp_path).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_sweep_searches_around_an_experiment_of_one_s_own(own, tones, tmp_path):
    pytest.importorskip("optuna")
    data = ["dataset=folder", f"dataset.root={tones}", "hydra.run.dir=found", *QUICK]
    sweep = ["--config-dir", own, "experiment=mine", "sweep=optuna", "sweep.trials=1"]
    ran("train.py", *sweep, *data, cwd=tmp_path)
    assert "lstm" in (tmp_path / "found" / "0" / ".hydra" / "config.yaml").read_text()


@pytest.mark.parametrize("value", [
    "Aufnahme (1).wav", "Müller", "a=b", "a#b;c", "it's", 'a "b"', "a&b!", "日本", "a{b", "b\\", "50 %", "C:\\x", "-",
    "a\tb",
])  # fmt: skip
def test_text_beyond_hydra_s_grammar_is_text(value, tmp_path):
    text = prepare(f"name={value}")
    printed = run("train.py", "--cfg", "job", "--package", "name", text, cwd=tmp_path).stdout.decode()
    assert value in printed or repr(value)[1:-1] in printed, printed


@pytest.mark.parametrize("text", ["seed=3", "a=[x,y]", "a={b:1}", "+a=1", "++a.b=null", "~a", "a='x,y'", "a=${seed}"])
def test_what_hydra_can_read_stays_as_it_is(text):
    assert prepare(text) == text


@pytest.mark.parametrize(("text", "message"), [
    ("name=a,b", "name: got 'a,b'; as text, in bash: 'name=\"a,b\"'; as a list: 'name=[a,b]'; one run for each: --multirun"),
    ("name=[a", "name: cannot read '[a' as a list, a mapping or quoted text; as text, in bash: 'name=\"[a\"'"),
    ("decoder.release={Tür: 0.5}", "stand in pairs: 'decoder.release=[[\"a, b\",0.5]]'"),
    ("name=", "name: got nothing; is a shell variable not set?"), ("name= ", "name: got nothing"),
    ("head=", "head: got nothing; is a shell variable not set? Expected one of: energy, last, max, mean"),
    ("head=null", "head: got null; expected one of: energy, last, max, mean"),
    ("sink=3", "vtt, webhook, window; for none of them: 'sink=[]'"), ("name", "got 'name'; expected KEY=VALUE"),
    ("=5", "got '=5'; expected KEY=VALUE"),
])  # fmt: skip
def test_what_could_be_meant_otherwise_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        prepare(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("option", [["--multirun"], ["-m"], ["--config-dir", "mine"], ["--cfg=job"]])
def test_overrides_may_stand_before_and_behind_an_option(option):
    assert arrange(["seed=1", *option, "name=x"]) == [*option, "seed=1", "name=x"]


@pytest.mark.parametrize("setting", [
    "dataset.root=~/sounds", "dataset.root='~/sounds'", "streams=~/sounds (1)", "streams=[~/sounds,~/b]",
])  # fmt: skip
def test_a_tilde_is_the_home_folder_in_every_key(setting, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = run("train.py", "dataset=folder", setting, cwd=tmp_path).stderr.decode()
    assert f"{tmp_path}/home/sounds" in text, text
    assert not (tmp_path / "~").exists()


def test_labels_may_begin_as_the_home_folder(tmp_path):
    text = run("train.py", 'decoder.threshold=[["~/x",0.7]]', cwd=tmp_path).stderr.decode()
    assert "decoder.threshold.~/x: no such label" in text


@pytest.mark.parametrize("text", ["+out=x", "+report=x", "+anything=x", "+trainer.anything=x"])
def test_keys_that_are_none_are_refused_and_leave_no_folder(text, tmp_path):
    assert len(refused("no such key", "train.py", text, cwd=tmp_path).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_folders_made_in_the_same_second_are_different(tmp_path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.map(new_folder, [str(tmp_path / "runs" / "now")] * 40, chunksize=1)
    assert len(set(found)) == 40 == len(list((tmp_path / "runs").iterdir())) and str(tmp_path / "runs" / "now") in found


def test_a_folder_in_use_is_refused_and_unchanged(tones, tmp_path):
    data = ["dataset=folder", f"dataset.root={tones}", f"hydra.run.dir={tmp_path / 'mine'}", *QUICK]
    ran("train.py", *data)
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    held = open_locked(tmp_path / "mine" / ".hydra" / "lock")
    try:
        refused("hydra.run.dir: another run is using", "train.py", *data, "seed=7")
    finally:
        os.close(held)
    assert before == {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("program", "columns"), [("train.py", 80), ("infer.py", 80), ("train.py", 200)])
def test_the_help_fits_the_terminal(program, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run(program, "--help").stdout.decode().splitlines()
    assert 70 < max(map(len, lines)) < columns and len(lines) <= 60


@pytest.mark.parametrize("program", ["train.py", "infer.py"])
def test_the_version_is_one_and_told(program):
    assert run(program, "--version").stdout.decode() == f"Rivulet {VERSION}\n"
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{VERSION}] - " in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(("given", "message"), [
    ([], "expected a model and a source: python infer.py checkpoint="),
    (["--checkpoint=runs/demo"], "--checkpoint=runs/demo: no such option; keys have no dashes: checkpoint=VALUE"),
    (["checkpoint=runs/demo", "source.path=."], "source.path: . is a folder; for its files: source=files source.paths=."),
    (["--threads", "2"], "--threads: no such option; keys have no dashes: threads=VALUE"),
    ([str(ROOT)], "expected KEY=VALUE, such as checkpoint=RUN, source.path=FILE or dataset.root=FOLDER"),
])  # fmt: skip
def test_first_mistakes_are_told_in_one_line_with_what_to_write(given, message):
    assert len(refused(message, "infer.py", *given).splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize("many", [[], ["--multirun", "seed=1,2"], ["sweep=optuna", "sweep.trials=2"]])
def test_eight_trainings_at_once_leave_eight_models_and_killed_ones_none_torn(tones, tmp_path, many):
    command = [sys.executable, str(ROOT / "train.py"), *many, "dataset=folder", f"dataset.root={tones}", *QUICK]

    def begin():
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    whole, killed = [begin() for _ in range(8)], []
    for number in range(20 if not many else 4):
        killed.append(begin())
        time.sleep(0.3 * (number % 5))
        killed[-1].send_signal(signal.SIGKILL)
    for process in killed:
        process.communicate()
    for process in whole:
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error.decode()
    models = list(tmp_path.glob("runs/**/model.safetensors"))
    assert len(models) >= 8 * (1 if not many else 2)
    for model in models:
        ran("infer.py", f"checkpoint={model}", f"source.path={next(Path(tones).rglob('*.wav'))}")


@pytest.mark.parametrize("script", ["train.py", "infer.py"])
def test_another_python_than_that_of_the_environment_is_one_line(script):
    done = subprocess.run([sys.executable, "-S", ROOT / script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "source .venv/bin/activate" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("shell", "tab"), [
    ("bash", 'eval "$(python train.py -sc install=bash)"; COMP_LINE="python train.py gate=vo" COMP_CWORD=2'
             '; COMP_POINT=${#COMP_LINE}; hydra_bash_completion; echo ${COMPREPLY[@]}'),
    ("fish", 'python infer.py -sc install=fish | source; complete -C "python infer.py gate=vo"'),
])  # fmt: skip
def test_the_tab_key_completes_options(shell, tab):
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", tab], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "gate=voice", done.stderr


@pytest.mark.parametrize("script", ["train.py", "infer.py"])
def test_an_interruption_of_the_imports_is_one_line(script, tmp_path):
    (tmp_path / "hydra.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    done = run(script, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (130, b"error: interrupted\n")


@pytest.mark.parametrize(("settings", "code", "message"), [
    ("sink=console >&- 2>&-", 0, ""), ("sink=csv >&-", 74, "cannot write standard output: is closed"),
])  # fmt: skip
def test_closed_outputs_end_with_a_message(settings, code, message, trained, tones):
    command = f'exec "$0" "{ROOT}/infer.py" checkpoint="{trained}" source=files source.paths="{tones}/low" {settings}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60
    )
    text = done.stderr.decode()
    assert done.returncode == code and message in text and len(text.splitlines()) == bool(message), text
