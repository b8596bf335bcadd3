"""sweep=optuna: what is searched, that nothing is lost, and what is told of it."""

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import warnings

import pytest
import torch
from conftest import QUICK, ROOT, configured, ran, read_jsonl, refused
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_report import read, rows

from conf.launch import check_settings
from pipeline.core.build import build
from pipeline.core.errors import ConfigError, DivergedError, UserError
from pipeline.core.search_space import Choices, Range, keys_of, parse_space, quote, to_override
from pipeline.report.comparison import main as compare
from pipeline.report.sweep import TrialResult, rank_trials
from pipeline.training.sweep import Sweep
from train import train as training

optuna = pytest.importorskip("optuna")
SPACE = {"x": {"low": -1.0, "high": 1.0}, "kind": {"choices": ["good", "bad"]}}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Databases do not wait for the disk, whose power nobody cuts here."""
    connect = sqlite3.connect

    def opened(path):
        database = connect(path)
        database.execute("PRAGMA synchronous=OFF")
        return database

    monkeypatch.setattr(sqlite3, "connect", opened)


class Curve:
    """A training whose accuracy is known: it nears ``1 - (x - 0.3)^2``, or half of it, epoch by epoch."""

    def __init__(self, epochs=4, fails=(), untestable=None):
        self.epochs, self.fails, self.seen, self.tested, self.untestable = epochs, fails, [], [], untestable

    def __call__(self, overrides, out, report):
        if report is None:
            assert overrides[-1] == f"trainer.resume={quote(str(out))}"
            self.tested.append(int(out.name))
            if self.untestable:
                raise self.untestable
            return
        values = dict(text.split("=") for text in overrides)
        x = float(values["x"])
        self.seen.append((out.name, x, values["kind"]))
        if len(self.seen) - 1 in self.fails:
            raise self.fails[len(self.seen) - 1]
        top = (1 - (x - 0.3) ** 2) * (1.0 if values["kind"] == "good" else 0.5)
        rows = []
        for epoch in range(1, self.epochs + 1):
            rows.append({"epoch": epoch, "val_accuracy": top * epoch / self.epochs, "val_loss": 1 - top})
            (out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            report(epoch, rows[-1])


def searched(out, train, given=(), settings=None, **options):
    out.mkdir(exist_ok=True)
    sweep = Sweep(**{"space": SPACE, "pruner": "none"} | options)
    sweep.run(train, given, {"trainer": {"epochs": train.epochs}} | (settings or {}), out)
    return trials_of(out)


def trials_of(folder):
    from pipeline.training.search import open_storage

    return optuna.load_study(study_name="sweep", storage=open_storage(folder / "study.db")).trials


def states(trials):
    return [trial.state.name for trial in trials]


# What is searched


def test_a_space_is_nested_or_dotted():
    space = parse_space(
        {"encoder": {"hidden": {"low": 32, "high": 128, "step": 32}, "dropout": None}, "optimizer.lr": {"low": 1e-4, "high": 1, "log": True},
         "extractor": {"high": {"low": 4000, "high": 8000}}, "cell": {"choices": ["gru", [64, 32], None]}}
    )  # fmt: skip
    assert space == {
        "encoder.hidden": Range(32, 128, 32, False, True),
        "optimizer.lr": Range(1e-4, 1, None, True, False),
        "extractor.high": Range(4000, 8000, None, False, True),
        "cell": Choices(("gru", "[64,32]", "null")),
    }


@pytest.mark.parametrize(("entry", "message"), [
    (3, r"sweep\.space\.a: got 3; expected \{low"),
    ({"low": 1}, "expected {low"),
    ({"low": 1, "hihg": 2}, "no such key; did you mean 'high'"),
    ({"low": 2, "high": 1}, "low must be below high"),
    ({"low": 0, "high": 1, "log": True}, "low must be positive"),
    ({"low": 1, "high": "x"}, "expected {low"),
    ({"low": 1, "high": float("nan")}, "expected {low"),
    ({"choices": ["one"]}, "two choices or more"),
    ({"choices": "ab"}, "two choices or more"),
    ({"choices": ["a", "b"], "low": 1}, "nothing beside them"),
])  # fmt: skip
def test_a_space_that_makes_no_sense(entry, message):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{") if "\\" not in message else message):
        Sweep(space={"a": entry})


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | numbers | st.text(max_size=8)


@given(plain | st.lists(plain, max_size=3))
def test_values_are_spelt_as_hydra_reads_them(value):
    read = OverridesParser.create().parse_override(f"key={quote(value)}").value()
    unquoted = read.text if hasattr(read, "text") else read
    expected = value if isinstance(value, list) else [value]
    for one, wanted in zip(unquoted if isinstance(value, list) else [unquoted], expected):
        assert (one.text if hasattr(one, "text") else one) == wanted
        assert isinstance(wanted, str) == isinstance(getattr(one, "text", one), str)


def test_what_is_drawn_is_used_with_few_digits():
    assert to_override("optimizer.lr", 0.00123456789) == "optimizer.lr=0.001235"
    assert to_override("a", "[64,32]") == "a=[64,32]"
    assert keys_of(["+a.b=3", "cell=gru", "~head", "++x@y=1"]) == {"a.b", "cell", "head", "x"}


def test_the_default_space_is_of_keys_that_are_there():
    config = configured("train", "sweep=optuna")
    sweep = build(config["sweep"], Sweep, at="sweep")
    for key, part in sweep.space.items():
        value = part.texts[-1] if isinstance(part, Choices) else part.high
        configured("train", "sweep=optuna", to_override(key, value))  # raises for a key that is not


# The course of a search, on a function whose best place is known


@pytest.mark.long
def test_it_finds_what_is_best(tmp_path):
    trials = searched(tmp_path / "a", Curve(epochs=1), trials=24)
    best = max(trials, key=lambda trial: trial.value)
    assert best.params["kind"] == "good" and abs(best.params["x"] - 0.3) < 0.1
    late = [trial.params["kind"] for trial in trials[10:]]
    assert late.count("good") > 0.75 * len(late)  # by chance it would be half
    main, sections = read(tmp_path / "a" / "sweep.html")
    assert len(list(main.iter("svg"))) >= 6 and len(list(main.iter("circle"))) >= 3 * 24
    assert list(sections) == ["Course", "Importance", "Settings", "Together", "Trials"]
    assert len(rows(sections["Trials"])) == 25


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.long)])
@pytest.mark.long
def test_poor_trials_are_pruned(tmp_path, pruner):
    curve = Curve(epochs=9)
    trials = searched(tmp_path / "a", curve, trials=16, pruner=pruner, warmup=1, sampler="random")
    assert {*states(trials)} == {"COMPLETE", "PRUNED"}
    assert all((len(trial.intermediate_values) < 9) == (trial.state.name == "PRUNED") for trial in trials)
    best = max(trials, key=lambda trial: (1 - (trial.params["x"] - 0.3) ** 2) * (1 + (trial.params["kind"] == "good")))
    assert best.state.name == "COMPLETE"
    text = (tmp_path / "a" / "sweep.html").read_text()
    assert "pruned" in text and f"trial {best.number}" in text


def test_a_trial_that_fails_is_not_the_end(tmp_path, capsys):
    errors = DivergedError("the loss is nan"), torch.OutOfMemoryError("no memory"), ConfigError("a does not fit b")
    fails = dict(enumerate(errors, 2))
    trials = searched(tmp_path / "a", Curve(fails=fails), trials=6)
    assert states(trials) == ["COMPLETE"] * 2 + ["FAIL"] * 3 + ["COMPLETE"]
    assert "trial 2 failed: the loss is nan" in capsys.readouterr().err
    assert "the loss is nan" in (tmp_path / "a" / "sweep.html").read_text()


def test_what_is_wrong_with_all_trials_is_told_at_the_first(tmp_path):
    curve = Curve(fails=dict.fromkeys(range(9), ConfigError("dataset.root: is not set")))
    with pytest.raises(ConfigError, match=r"dataset\.root"):
        searched(tmp_path / "a", curve, trials=3, settings={"dataset": 1})
    assert len(curve.seen) == 1
    assert len(searched(tmp_path / "a", Curve(), trials=3, settings={"dataset": 2})) == 3  # nothing was learned from it


def test_a_search_without_any_success_is_an_error(tmp_path):
    curve = Curve(fails=dict.fromkeys(range(9), DivergedError("the loss is nan")))
    with pytest.raises(UserError, match="none of the 3 trials has succeeded; the last one: the loss is nan"):
        searched(tmp_path / "a", curve, trials=3)


@pytest.mark.long
def test_interrupted_anywhere_it_draws_what_it_would_have_drawn(tmp_path):
    whole = Curve(epochs=1)
    searched(tmp_path / "a", whole, trials=13)
    first, rest = Curve(epochs=1, fails={11: KeyboardInterrupt()}), Curve(epochs=1)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "b", first, trials=13)
    searched(tmp_path / "b", rest, trials=13)
    assert first.seen[:11] + rest.seen == whole.seen


def test_a_trial_that_kills_the_program_is_given_up(tmp_path):
    for _ in range(3):
        with pytest.raises(SystemExit):
            searched(tmp_path / "a", Curve(fails={0: SystemExit(9)}), trials=2)
    trials = searched(tmp_path / "a", Curve(), trials=2)
    assert states(trials) == ["FAIL", "COMPLETE"]
    assert trials[0].user_attrs["error"] == "it ended the program 3 times"


def test_the_best_trial_is_tested_once_when_all_is_over(tmp_path):
    """After a search that was interrupted, too; and again only if more trials find a better one."""
    first, rest, again, more = Curve(fails={3: KeyboardInterrupt()}), Curve(), Curve(), Curve()
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "a", first, trials=6)
    trials = searched(tmp_path / "a", rest, trials=6)
    best = max(trials, key=lambda trial: trial.value).number
    searched(tmp_path / "a", again, trials=6)
    assert not first.tested and rest.tested == [best] and not again.tested
    trials = searched(tmp_path / "a", more, trials=18)
    assert more.tested == [max(trials, key=lambda trial: trial.value).number] != [best]


@pytest.mark.parametrize("error", [UserError("no test clip can be read"), torch.OutOfMemoryError("no memory")])
def test_what_cannot_be_tested_was_validated_all_the_same(tmp_path, error, capsys):
    with pytest.raises(UserError, match=str(error)):
        searched(tmp_path / "a", Curve(untestable=error), trials=3)
    trials, curve = trials_of(tmp_path / "a"), Curve()
    assert states(trials) == ["COMPLETE"] * 3
    assert "best: python train.py" in capsys.readouterr().out
    assert searched(tmp_path / "a", curve, trials=3) and len(curve.tested) == 1


def test_an_epoch_that_was_kept_and_not_reported_is_reported_later(tmp_path):
    """The trial ended the program between the two; then epochs are told again, and none of them twice."""

    def first(overrides, out, report):
        Curve(epochs=2)(overrides, out, lambda epoch, row: report(epoch, row) if epoch < 2 else None)
        raise KeyboardInterrupt

    first.epochs = 4
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "a", first, trials=1)
    assert trials_of(tmp_path / "a")[0].intermediate_values.keys() == {1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (trial,) = searched(tmp_path / "a", Curve(), trials=1)
    assert trial.intermediate_values.keys() == {1, 2, 3, 4}
    assert trial.value == read_jsonl(tmp_path / "a" / "0" / "history.jsonl")[-1]["val_accuracy"]


def test_training_tells_of_the_epochs_before_a_resumption(tones, tmp_path):
    settings = configured("train", *SWEEP[:7], f"dataset.root={tones}", "trainer.epochs=2")

    def ended(epoch, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(**check_settings(training, settings), out=tmp_path, report=ended)
    told = []
    settings["trainer"]["resume"] = str(tmp_path)
    tell = lambda epoch, row: told.append((epoch, row["epoch"]))  # noqa: E731
    training(**check_settings(training, settings), out=tmp_path, report=tell)
    assert told == [(1, 1), (2, 2)]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "test" not in metrics and metrics["val"]["count"] == 4  # a trial is not tested


def test_a_search_does_not_go_on_in_another_way(tmp_path):
    same = {"settings": {"seed": 1}, "pruner": "median"}
    searched(tmp_path / "a", Curve(), trials=2, **same)
    for key, value in (("seed", 7), ("sampler", "random"), ("pruner", "hyperband"), ("warmup", 2)):
        with pytest.raises(ConfigError, match=rf"sweep\.{key} was .*, is '?{value}"):
            searched(tmp_path / "a", Curve(), trials=4, **same | {key: value})
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        searched(tmp_path / "a", Curve(), trials=4, **same | {"settings": {"seed": 2}})
    with pytest.raises(ConfigError, match=r"space.*was"):
        searched(tmp_path / "a", Curve(), trials=4, **same, space=SPACE | {"x": {"low": 0, "high": 1}})
    assert len(searched(tmp_path / "a", Curve(), trials=3, **same, minutes=5)) == 3
    assert len(searched(tmp_path / "a", Curve(), trials=50, **same, minutes=1e-6)) == 3, "time is over"


def test_a_folder_under_any_name_in_which_a_search_was_killed_as_it_began(tmp_path):
    folder = tmp_path / "50% {x}?#é"
    folder.mkdir()
    (folder / "study.db.tmp").write_bytes(b"half")
    assert len(searched(folder, Curve(), trials=1)) == 1
    assert len(searched(folder, Curve(), trials=2)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [folder.name] and not (folder / "study.db.tmp").exists()


def test_what_the_command_line_sets_is_fixed(tmp_path):
    with pytest.raises(KeyError, match="kind"):  # which this training misses among its overrides
        searched(tmp_path / "a", Curve(), given=["kind=good"])
    with pytest.raises(ConfigError, match=r"trainer\.resume: is of one run"):
        searched(tmp_path / "b", Curve(), settings={"trainer": {"resume": "runs/x"}})
    with pytest.raises(ConfigError, match=r"sweep\.space: is empty"):
        searched(tmp_path / "b", Curve(), given=["kind=good", "x=1"])


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs Optuna, which is not installed: pip install 'optuna>=4'"):
        searched(tmp_path / "a", Curve())


def test_the_best_of_equals_has_the_lower_loss():
    found = [("done", 0.9, 0.5), ("done", 0.9, 0.4), ("pruned", 0.95, 0.1), ("failed", None, 0.1)]
    rows = [TrialResult(n, state, accuracy, loss, 1, 1, 1, {}) for n, (state, accuracy, loss) in enumerate(found)]
    assert [one.number for one in rank_trials(rows)] == [1, 0, 2]


def test_a_page_believes_nothing(tmp_path):
    searched(tmp_path / "a", Curve(), trials=2, space=SPACE | {"<script>alert(1)</script>": {"choices": [1, 2]}})
    assert "<script>alert(1)</script>" in rows(read(tmp_path / "a" / "sweep.html")[1]["Trials"])[0]


# As users call it


SWEEP = [*QUICK, "dataset=folder", "dataset.cache=null", "trainer.epochs=3", "sweep=optuna", "sweep.trials=3", "sweep.warmup=1",
         "~sweep.space.encoder"]  # fmt: skip


def command(tones, out, *more):
    return [*SWEEP, f"dataset.root={tones}", f"hydra.run.dir={out}", *more]


def same(one, other):
    """Whether two runs have the same weights."""
    first, second = (torch.load(folder / "last.ckpt", weights_only=True)["model"] for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def swept(tones, learn):
    """A sweep's folder, and what was printed."""
    out, printed = learn("sweep", *command(tones, "OUT"))
    return out, printed.decode()


def test_each_trial_is_a_run(swept):
    out, told = swept
    trials = trials_of(out)
    assert len(trials) == 3 and {"study.db", "sweep.html", ".hydra"} <= {path.name for path in out.iterdir()}
    for trial in trials:
        folder = out / str(trial.number)
        names = {path.name for path in folder.iterdir()}
        assert {"model.safetensors", "last.ckpt", "history.jsonl", ".hydra"} <= names
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        assert config.optimizer.lr == pytest.approx(trial.params["optimizer.lr"], rel=1e-3)
        assert config.encoder.hidden == 16
        assert config.head.pool == trial.params["head"] and "sweep" not in config
        assert "optimizer.lr=" in (folder / ".hydra" / "overrides.yaml").read_text()
        if trial.state.name == "COMPLETE":
            assert json.loads((folder / "metrics.json").read_text())["val"]["accuracy"] == trial.value
    best, rest = told.partition("its model: ")[::2]
    assert not re.search(r"\btest\b", best) and len(re.findall(r"^test: 4 clips", rest, re.MULTILINE)) == 1


def test_only_the_best_trial_has_figures_of_test_clips(swept, capsys):
    out, told = swept
    number = re.search(r"its model: .*/(\d+)/model\.safetensors", told)[1]
    for path in out.glob("*/metrics.json"):
        splits = {"test", "val"} & json.loads(path.read_text()).keys()
        rows = {row["split"] for row in read_jsonl(path.with_name("answers.jsonl"))}
        assert splits == rows == ({"test", "val"} if path.parent.name == number else {"val"})
    assert "Figures are of test clips" in (out / number / "report.html").read_text()
    assert len(list(out.glob("*/metrics.json"))) > 1 and compare([str(out)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    tested = {line[0]: line[2] for line in shown if line[:1] and line[0].isdigit() and len(line) > 8}
    assert tested[number] != "–" and set(tested) > {number}
    assert all(value == "–" for name, value in tested.items() if name != number)


def test_the_best_command_trains_the_best_model(swept, tmp_path):
    out, told = swept
    line = re.search(r"^best: python (train\.py .*)$", told, re.MULTILINE)[1]
    number = re.search(r"its model: .*/(\d+)/model\.safetensors", told)[1]
    assert "sweep" not in line.replace(str(out.parent), "")
    ran(*shlex.split(line), f"hydra.run.dir={tmp_path}")
    assert same(out / number, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_sweep_that_ends_in_the_middle_goes_on(swept, tones, tmp_path, number, code):
    """Stopped within the second trial: the third, which is drawn from what both reached, is the same."""
    started = subprocess.Popen([sys.executable, "train.py", *command(tones, tmp_path / "a")], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env=os.environ)  # fmt: skip
    limit = time.monotonic() + 120
    while not (tmp_path / "a" / "1" / "history.jsonl").is_file() and time.monotonic() < limit:
        time.sleep(0.005)
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == code and b"Traceback" not in err, err.decode()
    assert (b"the same command with" in err) == (code == 130)
    ran("train.py", *command(tones, tmp_path / "a"))
    for before, after in zip(trials_of(swept[0]), trials_of(tmp_path / "a"), strict=True):
        assert (before.params, before.state, before.value) == (after.params, after.state, after.value)
        assert same(swept[0] / str(before.number), tmp_path / "a" / str(before.number))
    assert trials_of(tmp_path / "a")[1].user_attrs["starts"] == 2


@pytest.mark.parametrize(("arguments", "message"), [
    ([*SWEEP, "+sweep.space.optimizer.lrr.choices=[1,2]"], "optimizer.lrr: no such key; did you mean 'optimizer.lr'"),
    pytest.param(["--multirun", "seed=1,2", *SWEEP], "leave --multirun out", marks=pytest.mark.long),
    (["sweep.trials=3"], "sweep.trials: belongs to sweep=optuna"),
])  # fmt: skip
def test_wrong_settings(tones, tmp_path, arguments, message):
    places = [f"dataset.root={tones}", f"hydra.run.dir={tmp_path / 'a'}", f"hydra.sweep.dir={tmp_path / 'b'}"]
    refused(message, "train.py", *arguments, *(places if SWEEP[-1] in arguments else ()), cwd=tmp_path)
