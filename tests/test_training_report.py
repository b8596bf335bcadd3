"""The page at the end of a training, and trainings side by side."""

import base64
import importlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import yaml
from conftest import QUICK, read_jsonl, run, small_model
from test_report import HOSTILE, read, rows, strict

from conf.launch import read_overrides
from datasets.clips import Clip, Clips
from datasets.scenes import Scenes, SceneSettings
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Picture
from pipeline.report import charts
from pipeline.report.clips import MAX_BYTES, embed_clip
from pipeline.report.comparison import main, render_comparison, tabulate
from pipeline.report.results import count_clips, write_results
from pipeline.report.runs import Run, common_split, find_differences, find_runs, flatten, group_families, read_run
from pipeline.report.summary import print_summary
from pipeline.report.training import title_of
from pipeline.tasks.classes import Classified
from pipeline.tasks.predictions import WorstClip
from pipeline.tasks.uncertainty import effective, wilson

DATA = re.compile(r'src="data:([a-z]+/[a-z0-9]+);base64,([^"]+)"')


def media(text):
    return [(kind, base64.b64decode(data)) for kind, data in DATA.findall(text)]


def test_a_training_ends_with_its_page(trained):
    text = (trained / "report.html").read_text()
    main_, sections = read(trained / "report.html")
    assert " ".join(sections) == "Accuracy Confusions Calibration Scores How soon Learning Worst clips Settings Machine"
    metrics = json.loads((trained / "metrics.json").read_text())
    assert main_.find("header/h1").text == f"Training: default, run {trained.name}"
    tiles = {tile[1].text: (tile[0].text, tile[2].text) for tile in main_.find("header/div")}
    assert tiles["accuracy, test"] == ("100.0\u00a0%", "51.0 – 100.0 (95\u00a0%)")
    assert tiles["parameters"][0] == f"{metrics['parameters']:,}"
    assert metrics["clips"] == {"train": 16, "val": 4, "test": 4} and not metrics["groups"]
    assert tiles["training clips"][0] == "16" and tiles["validation clips"][0] == "4"
    assert tiles["test clips"][0] == "4" and "in all" in tiles["test clips"][1]
    assert ["encoder.hidden", "16"] in rows(sections["Settings"]) and ["seed", "0"] in rows(sections["Settings"])
    line = shlex.split(next(sections["Settings"].iter("span")).text)
    assert line == ["python", "train.py", *metrics["overrides"]] and {"dataset=folder", "trainer.epochs=8"} < set(line)
    assert not any("hydra" in text for text in line)
    drawn = list(sections["Learning"].iter("svg"))
    axes = [[mark.text for mark in one.iter("text") if mark.get("class") == "middle"] for one in drawn]
    assert axes == [["2", "4", "6", "8", "epoch"]] * 3
    found = media(text)
    lines = read_jsonl(trained / "answers.jsonl")
    test = sorted((line for line in lines if line["split"] == "test"), key=lambda line: line["truth_score"])
    assert len(found) == len(test) == 4 and "://" not in text
    for (kind, data), line, told in zip(found, test, rows(sections["Worst clips"])[1:]):
        wave, rate = soundfile.read(io.BytesIO(data))
        assert (kind, rate) == ("audio/flac", 16000) and line["name"] in told[0]
        assert told[1:] == [line["truth"], f"{line['truth_score']:.3f}", f"{line['answer']} (correct)", told[2]]
        assert np.abs(wave - soundfile.read(line["name"])[0]).max() < 1e-4  # 16 bits
    assert not list(trained.glob("*.part"))


def answers_of(labels, spec, count=12, name=lambda number: f"n{number}"):
    """Answers to sounds that are to be shown."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(len(labels)), count).astype(np.float32)
    truth, wave = rng.integers(0, len(labels), count), rng.uniform(-2, 2, 6000).astype(np.float32)
    names, groups = ([name(number // size) for number in range(count)] for size in (1, 2))
    worst = [WorstClip(number, (wave,)) for number in range(3)]
    return Classified(labels, truth, scores, names, groups, np.ones(count), [[True] * 3] * count, 0.1, worst)


def finished(folder, labels=("a", "b"), seed=0, name=lambda number: f"n{number}", skipped=0, more=None, **settings):
    """A run's folder, written as a training writes it."""
    folder.mkdir(parents=True)
    model = small_model(labels=labels)
    found = answers_of(list(labels), model.spec, name=name)
    found.skipped = skipped
    history = [{"epoch": n, "train_loss": 1 / n, "val_loss": 2 / n, "train_accuracy": 0.1 * n, "val_accuracy": 0.1 * n, "lr": 0.1}
               for n in (1, 2, 3)]  # fmt: skip
    about = {"epochs": 3, "best_epoch": 2, "seconds": 1.5, "settings": {"seed": seed, "name": "x", **settings}}
    metrics = write_results(model, {"val": found, "test": found}, about | (more or {}), history, folder)
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    return metrics


def test_clips_and_groups_of_each_split_are_counted():
    def split(*groups):
        clips = [Clip(Path(f"{number}.wav"), "a", "train", group=group) for number, group in enumerate(groups)]
        return Clips(clips, ["a"], InputSpec(sound=16000))

    splits = {"train": split("anna", "anna", "ben", "ben"), "val": split("carl"), "test": range(0)}
    splits["unsure"] = split("anna", "")
    splits["train"].skipped = 5
    splits["scenes"] = Scenes(split("anna", "ben", "ben"), SceneSettings(), 1, 16000)
    found = count_clips(splits)
    assert found["clips"] == {"train": 4, "val": 1, "test": 0, "unsure": 2, "scenes": 3}
    assert found["groups"] == {"train": 2, "val": 1, "scenes": 2} and found["unreadable"] == {"train": 5}


def test_the_command_line_can_be_copied(tmp_path):
    """Whatever is in it, and however long it is; a run that does not know it says so by its silence."""
    overrides = ["name=two  blanks", "dataset.root='it''s $HOME'", f"+x=[{','.join('abc' * 200)}]", "<b>=`ls`"]
    (tmp_path / ".hydra").mkdir()
    assert read_overrides(tmp_path) is None
    file = tmp_path / ".hydra" / "overrides.yaml"
    for text, found in (("[]", []), ("{", None), ("a: 1", None), ("\xff", None), (yaml.safe_dump(overrides), overrides),
                        ("- x=${now:%Y}\n- y=${", None), ("- x=${now:%Y}", ["x=${now:%Y}"])):  # fmt: skip
        file.write_bytes(text.encode("latin-1"))
        assert read_overrides(tmp_path) == found, text
    finished(tmp_path / "a", more={"overrides": overrides})
    settings = read(tmp_path / "a" / "report.html")[1]["Settings"]
    assert shlex.split(settings.find("span[@class='name command']").text) == ["python", "train.py", *overrides]
    finished(tmp_path / "b")
    settings = read(tmp_path / "b" / "report.html")[1]["Settings"]
    assert settings.find("span") is None and "command line" not in settings.findtext("p")


def test_a_page_is_titled_by_its_folder():
    assert title_of("digits", Path("/runs/digits/2026-11-29_12-00-00")) == "Training: digits, run 2026-11-29_12-00-00"
    assert title_of("", Path("/runs/sweep_2026/7")) == "Training: run sweep_2026/7"


def test_worst_clips_say_which_answers_are_correct(tmp_path):
    finished(tmp_path / "a")
    head, *found = rows(read(tmp_path / "a" / "report.html")[1]["Worst clips"])
    assert head == ["clip", "true class", "score of the true class", "answer", "score of the answer"]
    for _, truth, own, answer, score in found:
        assert answer == (f"{truth} (correct)" if own == score else {"a": "b", "b": "a"}[truth])
    assert any("correct" in row[3] for row in found) and any("correct" not in row[3] for row in found)


def test_nothing_hostile_gets_into_the_pages(tmp_path):
    labels = [label or "-" for label in HOSTILE]
    settings = {"root": HOSTILE[0], HOSTILE[2]: 1}
    finished(tmp_path / "a", labels, name=lambda n: HOSTILE[n % len(HOSTILE)], dataset=settings)
    main_, _ = read(tmp_path / "a" / "report.html")
    text = "".join(main_.itertext())
    assert "<script>alert(1)</script>" in text and "\\u202e" in text  # as text alone
    finished(tmp_path / HOSTILE[11].replace("/", "_"), labels, seed=1)
    assert main([str(tmp_path), f"out={tmp_path / 'c.html'}"]) == 0
    read(tmp_path / "c.html")


def test_nothing_hostile_gets_at_the_terminal(tmp_path, capsys):
    label = "\x1b[2J\u202e"
    metrics = finished(tmp_path / "a", [label, "b"], dataset={"root": label + "[bold]"})
    one = {"threshold": 0.5, "found": 1, "true": 2, "false": 3}
    split = {"an_hour": 1.0, "false": 2, "hours": 0.5, "classes": {label: one, "b": one}}
    print_summary(metrics | {"events": {"wish": 2.0, "val": split, "test": split}}, tmp_path)
    finished(tmp_path / "b", dataset={"root": "other"})
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\u202e" not in told and told.count(r"\x1b[2J\u202e") >= 3 and "[bold]" in told


# Clips in a page


def embedded(x, sound=None, picture=None):
    return media(" ".join(f'src="{track.address}"' for track in embed_clip(x, InputSpec(sound, picture))))


def test_long_and_loud_sound_is_cut():
    wave = np.linspace(-3, 3, 16000 * 30).astype(np.float32)
    wave[5] = np.nan
    ((kind, data),) = embedded((wave,), 16000)
    found, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert (kind, rate, len(found)) == ("audio/flac", 16000, 160_000) and found[5] == 0
    ((_, data),) = embedded((np.random.default_rng(0).uniform(-1, 1, 192_000 * 9).astype(np.float32),), 192_000)
    assert len(data) < 1.1 * MAX_BYTES
    (track,) = embed_clip((wave,), InputSpec(sound=300))
    assert not track.address and "300 Hz" in track.remark


@pytest.mark.parametrize("sound", [None, 16000])
def test_pictures_move(sound):
    """A square that walks, as the model saw it."""
    images = np.zeros((20, 32, 48, 3), np.uint8)
    for step in range(20):
        images[step, 8:24, 2 * step : 2 * step + 10] = 255
    x = (images,) if sound is None else (np.zeros(32000, np.float32), images, np.ones((20, 2), np.float32))
    found = embedded(x, sound, Picture(10, 32, 48))
    assert [kind for kind, _ in found] == ["video/mp4"] + ["audio/flac"] * bool(sound)
    with av.open(io.BytesIO(found[0][1])) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert float(file.streams.video[0].average_rate) == 10
    assert len(frames) == 20 and np.abs(np.stack(frames).astype(int) - images).mean() < 8


def test_large_pictures_are_made_small():
    noise = np.random.default_rng(0).integers(0, 255, (150, 600, 300, 3), np.uint8)
    ((_, data),) = embedded((noise,), None, Picture(10, 600, 300))
    with av.open(io.BytesIO(data)) as file:
        frames = list(file.decode(video=0))
    assert len(data) <= MAX_BYTES and frames[0].height == 150 and 1 <= len(frames) < 100


# Figures


def test_staircases_and_logarithms():
    assert charts.to_stairs([(0, 1), (2, 3)]) == [(0, 1), (2, 1), (2, 3)] and charts.to_stairs([]) == []
    moved, marks = charts.to_logarithmic([(0, 1.0), (10, 0.5), (1e6, 0.1)], 1.0, 1000.0)
    assert moved == [(0.0, 1.0), (1.0, 0.5)] and marks == [(0.0, "1"), (1.0, "10"), (2.0, "100"), (3.0, "1k")]


def test_epochs_are_whole_numbers():
    for last, shown in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 3, 4, 5, 6]), (30, [5, 10, 15, 20, 25, 30])):
        assert charts.number_ticks(1, last, 6, step=1) == [(number, str(number)) for number in shown]


def test_bars_of_two_tones_stand_on_each_other():
    plot = charts.plot_scores({"right": [2, 0], "wrong": [1, 3]}, "score", "")
    low, high, alone = [one.attributes for one in plot.elements if one.name == "rect"]
    assert high["y"] + high["height"] == pytest.approx(low["y"]) and high["class"] == alone["class"] == "bad"
    assert low["height"] == pytest.approx(2 * high["height"], abs=0.03)
    assert alone["height"] == pytest.approx(3 * high["height"], abs=0.03)


# Side by side


def made(number, cell="GRU", metrics=True, right=(), **settings):
    accuracy = np.mean([hit for *_, hit in right]) if right else 0.5
    row = {"accuracy": accuracy, "macro_f1": 0.5, "interval": {"low": 0.1, "high": 0.9}}
    figures = {"test": row, "parameters": 10, "multiply_adds": 1e6, "epochs": 2, "seconds": 3.0}
    plain = {"seed": "0", "cell._target_": f"pipeline.cells.x.{cell}", "cell.bias": "True", **settings}
    return Run(Path(f"/runs/{number}"), figures if metrics else {}, plain, {"test": list(right)})


def test_only_settings_that_differ_are_shown():
    other = {"trainer.resume": "/old", "optimizer.lr": "1"}
    runs = [made(0), made(1, "LSTM", **{"cell.peephole": "True"}), made(2, **other)]
    assert find_differences(runs) == [{"cell": "GRU"}, {"cell": "LSTM"}, {"cell": "GRU", "optimizer.lr": "1"}]
    assert find_differences([made(0), made(1)]) == [{}, {}]
    plain = {"cell.coupled": "False"}
    other = [made(n, "LSTM", **plain | {"cell.peephole": one}) for n, one in enumerate(("True", "False"))]
    assert find_differences([runs[0], *other]) == [
        {"cell": "GRU"}, {"cell": "LSTM", "cell.peephole": "True"}, {"cell": "LSTM", "cell.peephole": "False"}
    ]  # fmt: skip
    broken = Run(runs[0].folder, {}, {"overrides": "cell=foo"})
    assert find_differences([made(0), made(1), broken]) == [{}, {}, {"overrides": "cell=foo"}]


def test_runs_are_compared_by_a_split_that_all_have():
    runs = [made(number, seed=str(number)) for number in range(2)]
    assert common_split(runs) == "test" and common_split([*runs, made(2, metrics=False)]) == "test"
    for one in runs:
        row = one.metrics["test"]
        one.metrics["val"] = row | {"accuracy": 0.5, "macro_f1": 0.125, "interval": {"low": 0.0625, "high": 0.75}}
    assert tabulate(runs)[0][4:6] == ["test at 95 %", "test F1"]
    del runs[1].metrics["test"]
    assert common_split(runs) == "val" and next(group_families(runs)).mean == 0.5
    columns, table = tabulate(runs)
    assert columns[4:6] == ["val at 95 %", "val F1"] and all(row[4:6] == ("6.2–75.0", "0.125") for row in table)
    assert [row[2] for row in table] == ["50.0", "50.0"] and [row[3] == "–" for row in table] == [False, True]
    text = render_comparison(runs)
    assert "validation clips, as not all were tested" in text and "alone, by their validation clips." in text


def test_folds_and_seeds_are_pooled_over_groups():
    rng = np.random.default_rng(0)
    runs, hits, counts = [], np.zeros(20), np.zeros(20)
    for fold in range(4):
        for seed in (0, 1):
            right = []
            for speaker in range(5 * fold, 5 * fold + 5):
                good = rng.random(30) < 0.4 + 0.5 * (speaker % 3 > 0)
                right += [(f"speaker{speaker}", "", bool(hit)) for hit in good]
                hits[speaker] += good.sum() / 2
                counts[speaker] = 30
            runs.append(made(len(runs), right=right, seed=str(seed), **{"dataset.fold": f"{fold + 1}/4"}))
    runs += [made(9, "LSTM", right=[("speaker0", "", True)]), made(10, metrics=False)]
    (found,) = group_families(runs)
    accuracies = [run.metrics["test"]["accuracy"] for run in runs[:8]]
    assert found.varied == "seeds and folds" and len(found.runs) == 8 and (found.clips, found.groups) == (600, 20)
    expected = np.mean(accuracies), min(accuracies), max(accuracies)
    assert (found.mean, found.least, found.most) == pytest.approx(expected)
    assert found.pooled == pytest.approx(hits.sum() / 600)
    worth = effective(hits, counts)
    assert found.pooled_interval == pytest.approx(wilson(found.pooled * worth, worth)) and worth < 300


def test_more_seeds_do_not_make_more_clips():
    """A clip that ten runs answer is one clip; parts of a recording, which have its name, are several."""
    right = [("", f"clip{number // 2}", number > 0) for number in range(12)]
    (found,) = group_families([made(seed, right=right, seed=str(seed)) for seed in range(10)])
    assert found.clips == found.groups == 12 and found.pooled == pytest.approx(11 / 12)
    assert found.pooled_interval == pytest.approx(wilson(11, 12))
    other = [("", name, not hit) for _, name, hit in right]
    (found,) = group_families([made(0, right=right), made(1, right=other, seed="1")])
    assert found.pooled == 0.5 and found.pooled_interval == pytest.approx(wilson(6, 12))


def test_folds_are_groups_where_no_others_are_known():
    def fold(number, good, group="", **settings):
        right = [(group and f"{group}{clip}", f"{number}-{clip}", clip < good) for clip in range(100)]
        return made(number, right=right, **{"dataset.fold": f"{number}/3", "dataset.fold_by": "speaker"} | settings)

    (found,) = group_families([fold(1, 50), fold(2, 70), fold(3, 90)])
    assert found.groups == 3 and found.pooled == pytest.approx(0.7) and found.varied == "folds"
    worth = effective(np.array([50, 70, 90]), np.full(3, 100))
    assert found.pooled_interval == pytest.approx(wilson(0.7 * worth, worth)) and worth < 4  # three tell little
    (found,) = group_families([fold(1, 50, group="g"), fold(2, 70, group="g"), fold(3, 90, group="g")])
    assert found.groups == 100
    (found,) = group_families([fold(n, good, **{"dataset.fold_by": "null"}) for n, good in ((1, 50), (2, 70), (3, 90))])
    assert found.groups == 300 and found.pooled_interval == wilson(210, 300)


def test_runs_with_other_settings_are_no_family():
    assert not list(group_families([made(0), made(1, seed="1", **{"optimizer.lr": "2"})]))
    assert not list(group_families([made(0), made(1)]))  # the same twice


def test_settings_are_flat():
    assert flatten({"a": {"b": 1, "c": {}}, "d": None, "e": [1]}) == {"a.b": "1", "a.c": "{}", "d": "null", "e": "[1]"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three runs, two of which differ in their seed alone."""
    place = tmp_path_factory.mktemp("compared")
    for name, seed, lr in (("0", 0, 0.1), ("2", 1, 0.1), ("10", 0, 0.2)):
        finished(place / name, seed=seed, optimizer={"lr": lr})
    return place


def test_comparison_on_the_terminal_and_as_a_page(folders, tmp_path, capsys):
    out = tmp_path / "c.html"
    assert main([str(folders), "--out", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    metrics = json.loads((folders / "0" / "metrics.json").read_text())
    accuracy, limits = 100 * metrics["test"]["accuracy"], metrics["test"]["interval"]
    assert f"{accuracy:.1f}" in shown and f"{100 * limits['low']:.1f}–{100 * limits['high']:.1f}" in shown
    assert "val test test test run % % at 95 % F1 parameters" in shown  # a heading of two lines
    assert "seeds or folds, by their test clips" in shown
    assert "2 seeds: 0 … 2" in shown and "seed=1, optimizer.lr=0.1" in shown and str(out) in shown
    _, sections = read(out)
    assert list(sections) == ["Accuracy", "Runs", "Seeds and folds", "Learning"]
    table = rows(sections["Runs"])
    assert [row[0] for row in table[1:]] == ["0", "2", "10"] and table[3][1] == "seed=0, optimizer.lr=0.2"
    assert main([str(folders / "0"), f"out={out}"]) == 0  # a single one, too


def test_clips_that_could_not_be_read_are_told(tmp_path, capsys):
    for name, skipped in (("a", 3), ("b", 0)):
        metrics = finished(tmp_path / name, skipped=skipped, seed=skipped)
        text = "".join(read(tmp_path / name / "report.html")[1]["Accuracy"].itertext())
        assert ("3 more could not be read and do not count." in text) == bool(skipped)
        assert metrics["test"]["skipped"] == skipped
        print_summary(metrics, tmp_path)
        assert ("12 clips (3 more could not be read)" in " ".join(capsys.readouterr().out.split())) == bool(skipped)
    assert main([str(tmp_path), f"out={tmp_path / 'c.html'}"]) == 0
    head, *found = rows(read(tmp_path / "c.html")[1]["Runs"])
    assert head[-1] == "unreadable" and [row[-1] for row in found] == ["3", "–"]
    assert "unreadable" not in tabulate([read_run(tmp_path / "b")])[0]


def test_failed_runs_are_told(folders):
    runs = [read_run(folder) for folder in find_runs([folders])]
    runs.append(Run(folders / "3", {}, {"overrides": "optimizer.lr=1e30"}))
    strict(render_comparison(runs))
    assert "failed" in render_comparison(runs) and "overrides=optimizer.lr=1e30" in render_comparison(runs)
    strict(render_comparison(runs[-1:]))


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: (folder / "metrics.json").unlink(), "holds no finished run"),
    (lambda folder: (folder / "metrics.json").write_text("{"), "is broken or of another version"),
    (lambda folder: (folder / "metrics.json").write_text("[]"), "is broken or of another version"),
    (lambda folder: (folder / "metrics.json").write_text('{"settings": {}, "test": {"accuracy": "x"}}'), "another version"),
    (lambda folder: (folder / "answers.jsonl").write_text("{}\n"), "another version"),
    (lambda folder: shutil.rmtree(folder), "is no folder"),
])  # fmt: skip
def test_what_is_no_run(change, message, folders, tmp_path, capsys):
    shutil.copytree(folders / "0", tmp_path / "run")
    change(tmp_path / "run")
    assert main([str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_wrong_usage(folders, tmp_path, capsys):
    importlib.import_module("pipeline.report.__main__")  # which does nothing when it is only imported
    assert main([]) == 2 and "no folders" in capsys.readouterr().err
    assert main([str(folders), f"out={tmp_path / 'none' / 'c.html'}"]) == 74
    assert "cannot write" in capsys.readouterr().err
    for arguments, code, message in ((["--ouput=x"], 2, "--ouput=x"), (["--help"], 0, "side by side")):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == code and message in "".join(capsys.readouterr())


def test_multirun_ends_with_the_comparison_also_if_a_run_fails(tones, tmp_path):
    done = run("train.py", "--multirun", "head=mean,max", "dataset=folder", "dataset.cache=null", *QUICK,
               "trainer.epochs=1", f"dataset.root={tones},/nowhere", f"hydra.sweep.dir={tmp_path / 'sweep'}")  # fmt: skip
    assert done.returncode == 2 and b"/nowhere" in done.stderr
    shown = " ".join(done.stdout.decode().split())
    assert "head.pool=mean" in shown and "head.pool=max" in shown and "failed" in shown
    _, sections = read(tmp_path / "sweep" / "comparison.html")
    table = rows(sections["Runs"])[1:]
    assert [row[0] for row in table] == ["0", "2", "1", "3"] and [row[2] for row in table][2:] == ["failed"] * 2
    assert "dataset.root=/nowhere" in table[2][1]


def test_what_was_heard_of_streams_stands_in_the_comparison():
    found = {"events": {"micro": {"truths": 3, "f1": 0.5}}, "false_an_hour": 12.34}
    runs = [made(number) for number in range(3)]
    runs[1].metrics["streams"] = found
    runs[2].metrics["streams"] = found | {"events": {"micro": {"truths": 0, "f1": 0.0}}}
    for one in runs:
        one.metrics["val"] = one.metrics["test"]
    columns, table = tabulate(runs)
    assert columns[6:8] == ["event F1", "false an hour"]
    assert [row[6:8] for row in table] == [("–", "–"), ("0.500", "12.3"), ("–", "12.3")]
    assert len(tabulate(runs[:1])[0]) == len(columns) - 2
