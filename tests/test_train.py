"""train.py, as a user calls it."""

import csv
import itertools
import json
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, configured, no_file_above, run, tone_clip

from pipeline.model.classifier import load

QUICK = ["encoder.hidden=16", "extractor.mels=20", "trainer.workers=0", "trainer.batch=8", "trainer.threads=1"]
QUICK += ["dataset=folder", "dataset.cache=null"]


def train(tones, out, *more, **options):
    return run("train.py", *QUICK, f"dataset.root={tones}", f"hydra.run.dir={out}", *more, **options)


def test_a_runs_folder(trained):
    for name in ("model.safetensors", "last.ckpt", "answers.jsonl", "report.html", "tensorboard"):
        assert (trained / name).exists()
    assert "encoder:" in (trained / ".hydra" / "config.yaml").read_text()
    metrics = json.loads((trained / "metrics.json").read_text())
    rows = history(trained)
    assert len(rows) == metrics["epochs"] and {"train_loss", "val_accuracy", "lr"} <= rows[0].keys()
    assert metrics["test"]["accuracy"] == 1.0 and metrics["test"]["count"] == 4  # high and low tones are easy
    assert load(trained / "model.safetensors").labels == ["high", "low"]


EXACT = ["trainer.epochs=3", "trainer.patience=3", "trainer.batch=4", "trainer.save_every=2", "trainer.ema=0.9"]


def kept(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_training_is_repeatable_and_resume_is_exact(tones, tmp_path, monkeypatch):
    """Interrupted within two epochs; the same weights, averages and history to the bit."""
    whole = train(tones, tmp_path / "a", *EXACT)
    assert whole.returncode == 0, whole.stderr.decode()
    steps, step = itertools.count(1), torch.optim.AdamW.step

    def interrupted(*given, **options):
        if next(steps) in (3, 8):  # 4 steps are an epoch
            raise KeyboardInterrupt
        return step(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        for more in ([], [f"trainer.resume={tmp_path / 'b'}"]):
            done = train(tones, tmp_path / "b", *EXACT, *more)
            assert done.returncode == 130 and b"to go on: the same command" in done.stderr, done.stderr.decode()
            assert json.loads(kept(tmp_path / "b")["progress"])["batch"] > 0, "the middle of an epoch"
    done = train(tones, tmp_path / "c", *EXACT, f"trainer.resume={tmp_path / 'b'}")
    assert done.returncode == 0 and b": goes on after epoch 1 of 3, step 2" in done.stderr, done.stderr.decode()
    same(tmp_path / "a", tmp_path / "c")
    again = train(tones, tmp_path / "c", *EXACT, f"trainer.resume={tmp_path / 'c'}")
    assert again.returncode == 0 and b"is finished, after epoch 3, by trainer.epochs=3" in again.stderr
    same(tmp_path / "a", tmp_path / "c")


def same(one, other):
    """Two runs have come to the same, but for the time that they took."""
    first, second = kept(one), kept(other)
    for part in ("model", "best"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    assert all(torch.equal(a, b) for a, b in zip(leaves(first["average"]), leaves(second["average"]), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(leaves(first["optimizer"]), leaves(second["optimizer"]), strict=True))
    rows = [history(run) for run in (one, other)]
    for row in rows[0] + rows[1]:
        row.pop("seconds")
    assert rows[0] == rows[1] and len(rows[0]) == 3
    metrics = [json.loads((run / "metrics.json").read_text())["test"]["accuracy"] for run in (one, other)]
    assert metrics[0] == metrics[1]


def leaves(state):
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [leaf for part in parts for leaf in leaves(part)]


@pytest.mark.long
def test_killed_at_twenty_random_moments(tones, tmp_path):
    whole = train(tones, tmp_path / "a", *EXACT)
    assert whole.returncode == 0, whole.stderr.decode()
    rng, kills = random.Random(0), 0
    while kills < 20:
        folder = tmp_path / f"b{kills}"
        command = [ROOT / "train.py", *QUICK, f"dataset.root={tones}", f"hydra.run.dir={folder}", *EXACT]
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not (folder / "last.ckpt").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.communicate()
        kills += process.returncode < 0
        done = train(tones, folder, *EXACT, f"trainer.resume={folder}")
        assert done.returncode == 0, done.stderr.decode()
        same(tmp_path / "a", folder)


def test_a_trained_model_is_where_training_begins(trained, tones, tmp_path):
    """With a learning rate of next to nothing the answers are those of the model it began with."""
    still = ["optimizer.lr=1.0e-9", "trainer.epochs=1", f"trainer.pretrained={trained}"]
    done = train(tones, tmp_path / "run", *still)
    assert done.returncode == 0 and b"labels it knows: 2, new: 0" in done.stderr, done.stderr.decode()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] == 1.0
    done = train(tones, tmp_path / "other", *still, "encoder.hidden=8", f"dataset.cache={tmp_path / 'cache'}")
    assert not (tmp_path / "cache").exists()  # nothing was read for it
    assert done.returncode == 2 and b"trainer.pretrained" in done.stderr and b"encoder.hidden was 16" in done.stderr


def test_another_training_is_not_resumed(trained, tones, tmp_path):
    for key, value in (("seed", 5), ("trainer.batch", 4), ("encoder.hidden", 8)):
        done = train(tones, tmp_path / "run", f"trainer.resume={trained}", f"dataset.cache={trained.parent / 'cache'}",
                     "trainer.epochs=8", f"{key}={value}")  # fmt: skip
        text = done.stderr.decode()
        assert done.returncode == 2 and f"{key} was" in text and f"is {value}" in text, text
    more = shutil.copytree(tones, tmp_path / "more")
    assert train(more, tmp_path / "run", "trainer.epochs=1").returncode == 0
    tone_clip(more / "high" / "another.wav", 1500)
    done = train(more, tmp_path / "run", f"trainer.resume={tmp_path / 'run'}", "trainer.epochs=2")
    text = done.stderr.decode()
    assert done.returncode == 2 and "the clips are not those" in text and "train was '" in text, text


@pytest.mark.long
def test_two_processes_train_as_one(tones, tmp_path):
    """The loss of each epoch is that of one process with the same batches, and only one of them writes and speaks."""
    calm = ["augment=none", "encoder.dropout=0", "trainer.carry=0", "trainer.epochs=2", "trainer.batch=6"]
    calm += ["trainer.balance=weights", f"dataset.root={tones}"]
    one = run("train.py", *QUICK, *calm, f"hydra.run.dir={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr.decode()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / "train.py"]
    more = [f"hydra.run.dir={tmp_path / 'two'}", "trainer.devices=2", f"dataset.cache={tmp_path / 'cache'}"]
    two = subprocess.run([*command, *QUICK, *calm, *more], capture_output=True, timeout=300, cwd=tmp_path)
    assert two.returncode == 0, two.stderr.decode()
    rows = [history(tmp_path / name) for name in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], abs=1e-5)
        assert first["val_loss"] == pytest.approx(second["val_loss"], abs=1e-4)
        assert first["train_accuracy"] == second["train_accuracy"]
    assert two.stdout.decode().count("run folder") == one.stdout.decode().count("run folder") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "two"], "nobody else made a folder"


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_devices_need_processes(tmp_path):
    done = run("train.py", "trainer.devices=2", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2 and "torchrun --nproc_per_node=2 train.py" in done.stderr.decode()


def test_a_full_disk_is_an_error_and_what_was_kept_is_whole(tones, tmp_path):
    """The first checkpoint fits, as the optimizer is not in it."""
    with no_file_above(60_000):
        done = train(tones, tmp_path, "trainer.epochs=2")
    text = done.stderr.decode()
    assert done.returncode == 74 and "cannot write" in text and "Traceback" not in text, text
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder.hiden=3"], "encoder.hiden: no such key; did you mean 'encoder.hidden'"),
        (["encoder.hidden=abc"], "encoder.hidden: got 'abc'"),
        (["+sed=3"], "sed: no such key; did you mean 'seed'"),
        (["+encoder.foo=3"], "encoder.foo: no such key"),
        (["cell=foo"], "cell: there is no 'foo'; expected one of: conv_elman"),
        (["dataset=folder"], "dataset.root: is not set"),
        (["dataset=folder", "dataset.root=/nowhere"], "dataset.root: '/nowhere' is not a folder"),
        (["cell._target_=os.system"], "cell._target_: 'os.system' is not allowed"),
        (["trainer.resume=/nowhere"], "trainer.resume: /nowhere does not exist"),
        (["extractor.high=9000"], "extractor.high: the band"),
        (["optimizer.lr=abc"], "optimizer.lr: got 'abc'"),
        (["dataset=folder", "dataset.root=.", "dataset.crop=-1"], "dataset.crop: got -1"),
        (["trainer.device=cuda"], "trainer.device: 'cuda' cannot be used here")
        if not torch.cuda.is_available()
        else (["trainer.device=tpu"], "got 'tpu'"),
        (["trainer.device=tpu"], "trainer.device: got 'tpu'"),
    ],
)
def test_wrong_settings(arguments, message, tmp_path):
    done = run("train.py", "trainer.epochs=1", *arguments, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    text = done.stderr.decode()
    assert done.returncode == 2 and message in text and "Traceback" not in text, text


def test_bad_files_in_the_data_are_named_and_skipped(tmp_path):
    for label, hertz in (("a", 300), ("b", 3000)):
        for number in range(8):
            tone_clip(tmp_path / "data" / label / f"{number}.wav", hertz, seed=number)
    (tmp_path / "data" / "a" / "te\x1b]0;owned\x07xt.wav").write_text("no sound")
    (tmp_path / "data" / "b" / "empty.wav").write_bytes(b"")
    tone_clip(tmp_path / "data" / "a" / "short.wav", 300, 0.003)
    done = train(tmp_path / "data", tmp_path / "run", "trainer.epochs=1")
    text = done.stderr.decode()
    assert done.returncode == 0, text
    assert (
        r"te\x1b]0;owned\x07xt.wav: unreadable" in text and "empty.wav: empty_file" in text and "short.wav" not in text
    )
    assert "\x1b]" not in text


def test_an_output_folder_that_cannot_be_written(tones, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = train(tones, tmp_path / "file" / "run", "trainer.epochs=1")
    text = done.stderr.decode()
    assert done.returncode == 74 and "cannot write" in text and "Traceback" not in text, text


def test_a_half_checkpoint_cannot_be_resumed(trained, tones, tmp_path):
    (tmp_path / "last.ckpt").write_bytes((trained / "last.ckpt").read_bytes()[:3000])
    done = train(tones, tmp_path / "run", f"trainer.resume={tmp_path}")
    assert done.returncode == 2 and "no whole checkpoint" in done.stderr.decode()


def test_hydra_as_users_know_it(tmp_path):
    more = ["cell=lstm", "encoder.hidden=192", "extractor=mfcc"]
    shown = run("train.py", "--cfg", "job", *more, cwd=tmp_path)
    text = shown.stdout.decode()
    assert shown.returncode == 0 and "hidden: 192" in text and "LSTM" in text and "coefficients: 20" in text
    taught = run("train.py", "--help", cwd=tmp_path).stdout.decode()
    for word in ("cell: conv_elman, conv_gru", "dataset: ", "experiment: ", "--multirun", "trainer.resume"):
        assert word in taught


def test_an_experiment_names_its_folder():
    assert configured("train", "experiment=keywords")["name"] == "keywords" and configured("train")["name"] == "default"
    assert configured("train", "experiment=keywords", "name=mine")["name"] == "mine"


def test_multirun(tones, tmp_path):
    done = run("train.py", "--multirun", "cell=elman,lstm", *QUICK, f"dataset.root={tones}", "trainer.epochs=1",
               f"hydra.sweep.dir={tmp_path / 'sweep'}")  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    models = [load(path) for path in (tmp_path / "sweep").glob("*/model.safetensors")]
    assert sorted(model.config["cell"]["_target_"].split(".")[-1] for model in models) == ["Elman", "LSTM"]


def test_the_last_model_is_kept_on_demand(tones, tmp_path):
    done = train(tones, tmp_path, "trainer.epochs=5", "trainer.keep=last", "trainer.patience=1", "trainer.ema=0.5")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "metrics.json").read_text())["best_epoch"] == 5, "nor is there patience"
    state, model = kept(tmp_path), load(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(value, model[name]) for name, value in state["best"].items())
    assert not all(torch.equal(value, model[name]) for name, value in state["model"].items()), "the average"


def test_bf16(tones, tmp_path):
    done = train(tones, tmp_path / "run", "trainer.epochs=1", "trainer.precision=bf16")
    assert done.returncode == 0, done.stderr.decode()
    assert all(tensor.dtype == torch.float32 for tensor in load(tmp_path / "run" / "model.safetensors").parameters())


def test_embedded_sounds_train_from_any_folder(tmp_path):
    small = ["dataset.clips=24", "dataset.held_out=12", "trainer.epochs=1", "encoder.hidden=8"]
    done = run("train.py", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"accuracy" in done.stdout and b"run folder" in done.stdout and b"report.html" in done.stdout
    (page,) = tmp_path.glob("runs/default/*/report.html")
    assert (page.parent / "model.safetensors").is_file()
    assert page.read_text().count("<audio") == 10  # of sounds that are made, not read


@pytest.fixture
def two_digits(real, tmp_path):
    """A table of the real recordings of two digits."""
    with open(real / "fsdd" / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in ("zero", "six", "0", "6")]
    with open(tmp_path / "two.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::3])
    return tmp_path / "two.csv"


def test_real_digits_are_learnt(real, two_digits, tmp_path):
    """Of two classes with as many clips each, chance is 50 %."""
    quick = ["trainer.epochs=4", "trainer.batch=8", "trainer.threads=1", "encoder.hidden=32"]
    source = [f"dataset.root={real / 'fsdd'}", f"dataset.file={two_digits}", "dataset.cache=null", "events=null"]
    done = run("train.py", "experiment=digits", *quick, *source, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] > 0.85


@pytest.mark.long
@pytest.mark.parametrize(("experiment", "folder", "bar"), [("digits", "fsdd", 0.99), ("keywords", "sc12", 0.91)])
def test_prepared_experiments_reach_their_figures(real, tmp_path, experiment, folder, bar):
    done = run(
        "train.py", f"experiment={experiment}", f"dataset.root={real / folder}", f"hydra.run.dir={tmp_path}", limit=1200
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["accuracy"] >= bar


def test_a_training_is_resumed_in_its_folder_and_several_runs_go_where_one_would(tones, tmp_path):
    still = ["trainer.epochs=1", f"dataset.root={tones}"]
    first = run("train.py", *QUICK, *still, f"hydra.run.dir={tmp_path / 'it is'}")
    assert first.returncode == 0, first.stderr.decode()
    again = run(
        "train.py", *QUICK, "trainer.epochs=2", still[1], f"trainer.resume='{tmp_path / 'it is'}'", cwd=tmp_path
    )
    assert again.returncode == 0 and not (tmp_path / "runs").exists(), again.stderr.decode()
    assert len(history(tmp_path / "it is")) == 2
    page = (tmp_path / "it is" / "report.html").read_text()
    assert "trainer.epochs=2" in page and "python train.py" in page and "trainer.resume=" not in page
    was = (tmp_path / "it is" / ".hydra" / "config.yaml").read_bytes()
    refused = run("train.py", *QUICK, *still, "seed=5", f"trainer.resume='{tmp_path / 'it is'}'")
    assert refused.returncode == 2 and b"seed was 0, is 5" in refused.stderr, refused.stderr.decode()
    assert (tmp_path / "it is" / ".hydra" / "config.yaml").read_bytes() == was
    several = run("train.py", *QUICK, *still, "--multirun", "seed=0,1", f"hydra.run.dir={tmp_path / 'both'}")
    assert several.returncode == 0, several.stderr.decode()
    assert (tmp_path / "both" / "comparison.html").is_file() and (tmp_path / "both" / "1" / "metrics.json").is_file()
