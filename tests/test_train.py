"""train.py, as a user calls it."""

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import soundfile
import torch
from conftest import QUICK, ROOT, configured, no_file_above, noise, ran, read_jsonl, run, tone_clip

from pipeline.model.classifier import load

FOLDER = [*QUICK, "dataset=folder", "dataset.cache=null"]


def train(tones, out, *more):
    return run("train.py", *FOLDER, f"dataset.root={tones}", f"hydra.run.dir={out}", *more)


def trained_in(tones, out, *more):
    done = train(tones, out, *more)
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def refused(done, *messages, code=2):
    text = done.stderr.decode()
    assert done.returncode == code and all(one in text for one in messages) and "Traceback" not in text, text


def test_a_runs_folder(trained):
    for name in ("model.safetensors", "last.ckpt", "answers.jsonl", "report.html", "tensorboard"):
        assert (trained / name).exists()
    assert "encoder:" in (trained / ".hydra" / "config.yaml").read_text()
    metrics = json.loads((trained / "metrics.json").read_text())
    rows = read_jsonl(trained / "history.jsonl")
    assert len(rows) == metrics["epochs"] and {"train_loss", "val_accuracy", "lr"} <= rows[0].keys()
    assert metrics["test"]["accuracy"] == 1.0 and metrics["test"]["count"] == 4  # high and low tones are easy
    assert load(trained / "model.safetensors").labels == ["high", "low"]


EXACT = ["trainer.epochs=3", "trainer.patience=3", "trainer.batch=4", "trainer.save_every=2", "trainer.ema=0.9"]


def kept(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("mined", [pytest.param(False, marks=pytest.mark.long), True])
def test_training_is_repeatable_and_resume_is_exact(tones, tmp_path, monkeypatch, mined):
    """Interrupted within two epochs; the same weights, averages and history to the bit."""
    soundfile.write(tmp_path / "street.wav", noise(10 * 16000) / 8, 16000)
    mine = [f"dataset.negatives={tmp_path / 'street.wav'}", "trainer.mine=1", "trainer.batch=8", "decoder.minimum=0"]
    exact = [*EXACT, *mined * mine]
    trained_in(tones, tmp_path / "a", *exact)
    hard = json.loads(kept(tmp_path / "a")["progress"])["hard"]
    assert bool(hard) == mined
    steps, step = itertools.count(1), torch.optim.AdamW.step

    def interrupted(*given, **options):
        if next(steps) in (3, 8):  # 4 steps are an epoch
            raise KeyboardInterrupt
        return step(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        for more in ([], [f"trainer.resume={tmp_path / 'b'}"]):
            refused(train(tones, tmp_path / "b", *exact, *more), "to go on: the same command", code=130)
            assert json.loads(kept(tmp_path / "b")["progress"])["batch"] > 0, "the middle of an epoch"
    told = {"b": ": goes on after epoch 1 of 3, step 2", "c": "is finished, after epoch 3, by trainer.epochs=3"}
    for start, message in told.items():
        assert message in trained_in(tones, tmp_path / "c", *exact, f"trainer.resume={tmp_path / start}")
        same(tmp_path / "a", tmp_path / "c")


def same(one, other):
    """Two runs have come to the same, but for the time that they took."""
    first, second = kept(one), kept(other)
    for part in ("model", "best", "average", "optimizer"):
        assert all(torch.equal(a, b) for a, b in zip(leaves(first[part]), leaves(second[part]), strict=True))
    rows = [[row | {"seconds": 0} for row in read_jsonl(run / "history.jsonl")] for run in (one, other)]
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
    trained_in(tones, tmp_path / "a", *EXACT)
    rng, kills = random.Random(0), 0
    while kills < 20:
        folder = tmp_path / f"b{kills}"
        command = [ROOT / "train.py", *FOLDER, f"dataset.root={tones}", f"hydra.run.dir={folder}", *EXACT]
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (folder / "last.ckpt").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        kills += process.wait() < 0
        trained_in(tones, folder, *EXACT, f"trainer.resume={folder}")
        same(tmp_path / "a", folder)


def test_a_trained_model_is_where_training_begins(trained, tones, tmp_path):
    """With a learning rate of next to nothing the answers are those of the model it began with."""
    still = ["optimizer.lr=1.0e-9", "trainer.epochs=1", f"trainer.pretrained={trained}"]
    assert "labels it knows: 2, new: 0" in trained_in(tones, tmp_path / "run", *still)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] == 1.0
    done = train(tones, tmp_path / "other", *still, "encoder.hidden=8", f"dataset.cache={tmp_path / 'cache'}")
    assert not (tmp_path / "cache").exists()  # nothing was read for it
    refused(done, "trainer.pretrained", "encoder.hidden was 16")


def test_another_training_is_not_resumed(trained, tones, tmp_path):
    again = [f"trainer.resume={trained}", f"dataset.cache={trained.parent / 'cache'}", "trainer.epochs=8"]
    for key, value in (("seed", 5), ("trainer.batch", 4), ("encoder.hidden", 8)):
        refused(train(tones, tmp_path / "run", *again, f"{key}={value}"), f"{key} was", f"is {value}")
    more = shutil.copytree(tones, tmp_path / "more")
    trained_in(more, tmp_path / "run", "trainer.epochs=1")
    tone_clip(more / "high" / "another.wav", 1500)
    done = train(more, tmp_path / "run", f"trainer.resume={tmp_path / 'run'}", "trainer.epochs=2")
    refused(done, "the clips are not those", "train was '")
    (tmp_path / "last.ckpt").write_bytes((trained / "last.ckpt").read_bytes()[:3000])
    refused(train(tones, tmp_path / "run", f"trainer.resume={tmp_path}"), "no whole checkpoint")


@pytest.mark.long
def test_two_processes_train_as_one(tones, tmp_path):
    """The loss of each epoch is that of one process with the same batches, and only one of them writes and speaks."""
    calm = ["augment=none", "encoder.dropout=0", "trainer.carry=0", "trainer.epochs=2", "trainer.batch=6"]
    calm = [*FOLDER, *calm, "trainer.balance=weights", f"dataset.root={tones}"]
    one = ran("train.py", *calm, f"hydra.run.dir={tmp_path / 'one'}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / "train.py"]
    more = [f"hydra.run.dir={tmp_path / 'two'}", "trainer.devices=2", f"dataset.cache={tmp_path / 'cache'}"]
    two = subprocess.run([*command, *calm, *more], capture_output=True, timeout=300, cwd=tmp_path)
    assert two.returncode == 0, two.stderr.decode()
    for first, second in zip(
        read_jsonl(tmp_path / "one" / "history.jsonl"), read_jsonl(tmp_path / "two" / "history.jsonl"), strict=True
    ):
        for key in ("train_loss", "val_loss", "train_accuracy"):
            assert first[key] == pytest.approx(second[key], abs=1e-4 if key == "val_loss" else 1e-5)
    assert two.stdout.decode().count("run folder") == one.stdout.decode().count("run folder") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "two"], "nobody else made a folder"


def test_a_full_disk_is_an_error_and_what_was_kept_is_whole(tones, tmp_path):
    """The first checkpoint fits, as the optimizer is not in it."""
    with no_file_above(60_000):
        done = train(tones, tmp_path, "trainer.epochs=2")
    refused(done, "cannot write", code=74)
    assert not list(tmp_path.glob("*.part"))


FEW = ["dataset.clips=24", "dataset.held_out=12"]  # embedded sounds


@pytest.mark.parametrize(("arguments", "message"), [
    (["encoder.hidden=abc"], "encoder.hidden: got 'abc'"),
    (["dataset=folder"], "dataset.root: is not set"),
    (["dataset=folder", "dataset.root=/nowhere"], "dataset.root: '/nowhere' is not a folder"),
    (["cell._target_=own.Cell", "cell.share=3"], "cell.share: is not in the yaml of cell; to add a key of a part of your"),
    (["cell._target_=os.system"], "cell._target_: 'os.system' is not allowed"),
    (["trainer.resume=/nowhere", *FEW], "trainer.resume: /nowhere does not exist"),
    (["extractor.high=9000"], "extractor.high: the band"),
    (["optimizer.lr=-1", *FEW], "optimizer: Invalid learning rate: -1.0"),
    (["dataset=folder", "dataset.root=.", "dataset.crop=-1"], "dataset.crop: got -1"),
    (["trainer.device=cuda" if not torch.cuda.is_available() else "trainer.device=mps"], "cannot be used here"),
    (["trainer.device=tpu"], "trainer.device: got 'tpu'"),
    (["trainer.devices=2"], "torchrun --nproc_per_node=2 train.py"),
])  # fmt: skip
def test_wrong_settings(arguments, message, tmp_path):
    refused(run("train.py", "trainer.epochs=1", *arguments, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path), message)


def test_bad_files_in_the_data_are_named_and_skipped(tones, tmp_path):
    root = shutil.copytree(tones, tmp_path / "data")
    (root / "low" / "te\x1b]0;owned\x07xt.wav").write_text("no sound")
    (root / "high" / "empty.wav").write_bytes(b"")
    tone_clip(root / "low" / "short.wav", 300, 0.003)
    text = trained_in(root, tmp_path / "run", "trainer.epochs=1", "trainer.precision=bf16")
    assert r"te\x1b]0;owned\x07xt.wav: unreadable" in text and "empty.wav: empty_file" in text
    assert "short.wav" not in text and "\x1b]" not in text
    assert all(tensor.dtype == torch.float32 for tensor in load(tmp_path / "run" / "model.safetensors").parameters())


def test_an_output_folder_that_cannot_be_written(tones, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(train(tones, tmp_path / "file" / "run", "trainer.epochs=1"), "cannot write", code=74)


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


def test_the_last_model_is_kept_on_demand(tones, tmp_path):
    trained_in(tones, tmp_path, "trainer.epochs=5", "trainer.keep=last", "trainer.patience=1", "trainer.ema=0.5")
    assert json.loads((tmp_path / "metrics.json").read_text())["best_epoch"] == 5, "nor is there patience"
    state, model = kept(tmp_path), load(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(value, model[name]) for name, value in state["best"].items())
    assert not all(torch.equal(value, model[name]) for name, value in state["model"].items()), "the average"


def test_embedded_sounds_train_from_any_folder(tmp_path):
    small = [*FEW, "trainer.epochs=1", "encoder.hidden=8"]
    done = ran("train.py", *small, cwd=tmp_path)
    assert all(word in done.stdout for word in (b"accuracy", b"run folder", b"report.html"))
    (page,) = tmp_path.glob("runs/default/*/report.html")
    assert (page.parent / "model.safetensors").is_file()
    assert page.read_text().count("<audio") == 10  # of sounds that are made, not read


@pytest.mark.long
@pytest.mark.parametrize(("experiment", "folder", "bar"), [
    ("digits", "fsdd", 0.99), ("keywords", "sc12", 0.91), ("digits_speech", "fsdd", 0.98), ("keywords_speech", "sc12", 0.92)
])  # fmt: skip
def test_prepared_experiments_reach_their_figures(real, tmp_path, experiment, folder, bar):
    if experiment.endswith("_speech") and not find_spec("livekit"):
        pytest.skip("needs make setup EXTRAS=pretrained")
    source = f"dataset.root={real / folder}"
    ran("train.py", f"experiment={experiment}", source, f"hydra.run.dir={tmp_path}", limit=1200)
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["accuracy"] >= bar


def test_a_training_is_resumed_in_its_folder_and_several_runs_go_where_one_would(tones, tmp_path):
    folder, again = tmp_path / "it is", [*FOLDER, f"dataset.root={tones}", f"trainer.resume='{tmp_path / 'it is'}'"]
    trained_in(tones, folder, "trainer.epochs=1")
    ran("train.py", *again, "trainer.epochs=2", cwd=tmp_path)
    assert not (tmp_path / "runs").exists() and len(read_jsonl(folder / "history.jsonl")) == 2
    page = (folder / "report.html").read_text()
    assert "trainer.epochs=2" in page and "python train.py" in page and "trainer.resume=" not in page
    was = (folder / ".hydra" / "config.yaml").read_bytes()
    refused(run("train.py", *again, "trainer.epochs=1", "seed=5"), "seed was 0, is 5")
    assert (folder / ".hydra" / "config.yaml").read_bytes() == was
    trained_in(tones, tmp_path / "both", "trainer.epochs=1", "--multirun", "cell=elman,lstm")
    assert (tmp_path / "both" / "comparison.html").is_file() and (tmp_path / "both" / "1" / "metrics.json").is_file()
