"""The page about a training: how good the model is, how sure that is, what it costs, and what it gets wrong."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import pipeline.report.charts as charts
import pipeline.report.page as page
from pipeline.measures.evaluation import Answers, Exhibit
from pipeline.media.input_spec import InputSpec
from pipeline.report.accuracy import LISTED, by_class, calibrated, confused
from pipeline.report.exhibits import shown
from pipeline.report.page import Html, Section
from pipeline.report.runs import flat

FEW = 24  # classes that have a histogram each
SPLITS = {"test": "test clips, which were never learnt from", "val": "validation clips, by which the model was chosen"}
KINDS = {"train": "training", "val": "validation", "test": "test"}  # of clips
Figures = Mapping[str, Any]


def written(
    metrics: Figures, history: Sequence[Figures], found: Mapping[str, Answers], spec: InputSpec, folder: Path
) -> str:
    """The page of the run in ``folder``: ``metrics`` as in metrics.json, ``history`` with a row for each epoch, answers
    by split.
    """
    split = "test" if "test" in found else "val"
    says = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}. Figures are of {SPLITS[split]}."
    if begun := metrics["settings"].get("trainer", {}).get("pretrained"):
        says += f" Training began with the weights of {begun}, whose clips are not known here."
    sections = [
        *of_split(metrics[split], "val" if split == "test" and "val" in metrics else "", metrics),
        soon(metrics[split]["online"]),
        *learning(history, metrics),
        *(of_streams(metrics["streams"]) if "streams" in metrics else ()),
        *(wished(metrics["events"], split) if "events" in metrics else ()),
        worst(found[split], spec),
        settings(metrics),
        Section("Machine", "Where this was computed.", [page.facts(dict(metrics["machine"]))]),
    ]
    heading = titled(str(metrics["settings"].get("name", "")), folder.resolve())
    return page.page(heading, says, [one for one in sections if one], [opening(metrics, split)])


def titled(name: str, folder: Path) -> str:
    """Which training a page is about: its name, which many have in common, and its folder; of one of a sweep, whose
    folder is a number, that of the sweep, too.
    """
    run = f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name
    return f"Training: {name}, run {run}" if name else f"Training: run {run}"


def settings(metrics: Figures) -> Section:
    """What was given, as a command line if it is known, and everything that followed from it."""
    every, given = page.facts(flat(metrics["settings"])), metrics.get("overrides")
    if given is None:
        return Section("Settings", "All settings, as they were used.", [every])
    anew = [one for one in given if not one.startswith("trainer.resume=")]
    says = (
        "The command line, without settings of Hydra itself such as the folder of the run. Below it all settings, as "
        "they were used: what the command line does not give comes from an experiment, or is a default."
    )
    return Section("Settings", says, [page.command(shlex.join(["python", "train.py", *anew])), every])


def opening(metrics: Figures, split: str) -> Html:
    """The main figures."""
    row, step = metrics[split], metrics["step"]
    low, high = (f"{100 * row['interval'][side]:.1f}" for side in ("low", "high"))
    size = [(f"{metrics['bytes'] / 1e6:.2f}\u00a0MB", "model", "")] if "bytes" in metrics else []
    counted = f"without {', '.join(metrics['uncounted'])}" if metrics["uncounted"] else "products only"
    return page.tiles([
        (page.share(row["accuracy"]), f"accuracy, {split}", f"{low} – {high} (95\u00a0%)"),
        (f"{row['macro_f1']:.3f}", "macro F1", "mean of the classes"),
        *([(page.share(row["top2"]), "among the best two", "")] if len(row["classes"]) > 2 else []),
        *clips(metrics, split),
        (f"{metrics['parameters']:,}", "parameters", ""),
        (amount(metrics["multiply_adds"]), "multiply-adds", f"per second of input, {counted}"),
        (f"{step['p50_ms']:.2g}\u00a0ms", "a live step", f"{1000 * step['chunk']:.3g} ms of input, one thread"),
        *size,
        (page.lasting(metrics["seconds"]), "training", f"{metrics['epochs']} epochs; kept: {metrics['best_epoch']}"),
    ])  # fmt: skip


def clips(metrics: Figures, split: str) -> Iterator[tuple[str, str, str]]:
    """How many clips there are of each kind, those of ``split``, which the figures are of, first."""
    row, groups = metrics[split], metrics.get("groups", {})
    lost = metrics.get("unreadable", {}) | {split: row["skipped"]}
    others = {name: count for name, count in metrics.get("clips", {}).items() if count and name != split}
    for name, count in {split: row["count"], **others}.items():
        origin = [f"from {groups[name]:,} {'groups' if groups[name] > 1 else 'group'}"] if name in groups else []
        length = [f"{page.lasting(row['seconds'])} in all"] if name == split else []
        missing = [f"{lost[name]:,} unreadable"] if lost.get(name) else []
        yield f"{count:,}", f"{KINDS[name]} clips", "; ".join([*origin, *length, *missing])


def amount(number: float) -> str:
    """A large number to three digits: 12.3 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\u00a0{unit}"
    return f"{number:.3g}"


def of_split(row: Figures, other: str, metrics: Figures) -> Iterator[Section]:
    """Classes, confusions, calibration and scores of a split; ``other``: a split whose accuracy is told, too."""
    told, matrix = row["interval"], np.array(row["confusion"], np.int64)
    hits, pairs = int(matrix.trace()), np.flatnonzero(matrix)
    groups = f" The clips come from {told['groups']:,} groups (people, places)." if told["groups"] else ""
    more = f" On the {other} split it is {page.share(metrics[other]['accuracy'])}." if other else ""
    keys = "precision", "recall", "f1", "support"
    met = np.logical_or(matrix.any(0), matrix.any(1)).tolist()  # a background of scenes alone has no clips
    rows = [
        (label, *(one[key] for key in keys))
        for (label, one), there in zip(row["classes"].items(), met, strict=True)
        if there
    ]
    yield Section(
        "Accuracy",
        f"{hits:,} of {row['count']:,} clips were answered right: {page.share(row['accuracy'])}. With other clips of "
        f"the same kind it may be {page.share(told['low'])} to {page.share(told['high'])} (95\u00a0%, "
        f"{told['method']}).{groups}{unread(row)}{more} The weakest classes come first.",
        [by_class(sorted(rows, key=lambda entry: (not entry[4], entry[3])), "clips")],
    )
    if not row["count"]:
        return
    yield confused(list(row["classes"]), pairs, matrix.reshape(-1)[pairs])
    yield calibrated(np.array([row["calibration"]["bins"][key] for key in ("count", "right", "score")], np.float64))
    yield of_scores(row["scores"])


def unread(row: Figures) -> str:
    """That clips could not be read, if so."""
    return f" {row['skipped']:,} more could not be read and do not count." if row["skipped"] else ""


def of_scores(scores: Figures) -> Section:
    """How sure the answers are, and each class's scores."""
    names = "right", "wrong"
    drawn = charts.two_tones(scores["right"], scores["wrong"], names, "score of the answer", "Number of clips by score")
    blocks = [drawn]
    if len(scores["classes"]) <= FEW:
        small = [
            page.figure(label, charts.outlines([one["own"], one["others"]], f"Scores of {page.short(label, 80)}"))
            for label, one in scores["classes"].items()
        ]
        blocks.append(page.small(small))
    says = (
        "How sure the answers are, right and wrong ones. Below, the scores that each class has for its own clips "
        "(blue) and for all others (red), each to its own scale: where they overlap, no threshold parts them."
    )
    return Section("Scores", says if blocks[1:] else says.split(" Below")[0], blocks)


def soon(online: Figures) -> Section | None:
    """How soon the answers are right."""
    line = [((place + 1) * online["step"], value) for place, value in enumerate(online["accuracy"])]
    if len(line) < 2:
        return None
    drawn = charts.lines(
        {"right answers": line}, "seconds heard or seen", "Accuracy over time", (0, 1), (), page.percent
    )
    says = "Accuracy after so much of a clip (from where its sound or motion begins, if that is known)."
    return Section("How soon", says, [drawn])


def learning(history: Sequence[Figures], metrics: Figures) -> Iterator[Section]:
    """Losses, accuracies and the learning rate by epoch."""
    if not history:
        return

    def line(key: str) -> list[tuple[float, float]]:
        return [(row["epoch"], row[key]) for row in history if isinstance(row.get(key), int | float)]

    epochs = charts.numbered(row["epoch"] for row in history)
    losses = {"training loss": line("train_loss"), "validation loss": line("val_loss")}
    loss = charts.lines(losses, "epoch", "Losses", None, epochs)
    accuracy = charts.lines(
        {"training accuracy": line("train_accuracy"), "validation accuracy": line("val_accuracy")},
        "epoch", "Accuracies", (0, 1), epochs, page.percent,
    )  # fmt: skip
    rate = charts.lines({"learning rate": line("lr")}, "epoch", "Learning rate", None, epochs)
    why = "the last" if metrics["best_epoch"] == metrics["epochs"] else "the best on the validation clips"
    says = (
        f"The model of epoch {metrics['best_epoch']} was kept, {why}. Training losses and "
        "accuracies are of changed clips (augmentation, dropout, smoothed labels), so they can be the worse ones."
    )
    yield Section("Learning", says, [page.abreast(loss, accuracy, rate)])


def of_streams(found: Figures) -> Iterator[Section]:
    """Detection on long recordings."""
    hours, micro, late = found["hours"], found["events"]["micro"], found["latency"]
    onset = found["events"]["onset_only"]
    tiles = page.tiles([
        (f"{micro['f1']:.3f}", "event F1, micro", f"precision {micro['precision']:.2f}, recall {micro['recall']:.2f}"),
        (f"{onset['f1']:.3f}", "onset only", "wherever events end"),
        (f"{found['false_an_hour']:,.1f}", "false alarms an hour", f"{found['false']:,} in all"),
        (page.share(found["missed"]) if found["missed"] is not None else "–", "missed", "no answer begins in them"),
        (said(late["p50"]), "from start to detection", f"90\u00a0%: {said(late['p90'])}"),
        (page.lasting(3600 * hours), "heard or seen", f"{len(found['recordings']):,} recordings"),
    ])  # fmt: skip
    rows = [
        (
            label,
            f"{found['thresholds'].get(label, float('nan')):.2f}",
            *(f"{one[key]:,}" for key in ("truths", "answers", "hits")),
            *(f"{one[key]:.3f}" for key in ("precision", "recall", "f1")),
        )
        for label, one in found["events"]["classes"].items()
    ]
    numbers = "threshold", "true", "found", "hits", "precision", "recall", "F1"
    apart = f" {found['left_out']:,} events of other labels do not count." if found["left_out"] else ""
    says = (
        "The live model on long recordings, with its own thresholds. A hit has the right label, begins within 200 ms "
        f"and ends within the greater of 200 ms and half the true length.{apart} A block's length and the computing "
        "still add to the time of detection."
    )
    yield Section("Streams", says, [tiles, page.table(("class", *numbers), rows[:LISTED], numbers)])
    if found["missed"] is None:
        return
    yield traded(found, 1 / hours if hours else 1.0)


def traded(found: Figures, least: float) -> Section:
    """What other thresholds would give. ``least``: false alarms an hour, if there was one in all."""
    line = [(false, missed) for _, false, missed in found["det"]]
    moved, marks = charts.logarithmic(line, min(1.0, least), max(1000.0, 10 * least))
    axis = "false alarms an hour"
    staircase = {"missed": charts.stairs(moved)}
    det = charts.lines(staircase, axis, "Misses over false alarms", (0, 1), marks, page.percent, moved)
    steps = charts.stairs([(x, y) for x, y in found["psd"]["points"]])
    psd = charts.lines({"found": steps}, f"{axis} and class", "PSD-ROC", (0, 1), (), page.percent)
    at = found["miss_at"].items()
    misses = ", ".join(f"at {most}: {'–' if miss is None else page.share(miss)}" for most, miss in at)
    says = (
        "What other thresholds would give, one for all classes. On the left, the fewest events in which no answer "
        "begins, over answers that begin in no event, or hardly lie in it (none: at the left edge). Missed at so many "
        f"false alarms an hour: {misses}. "
        f"{page.lasting(3600 * found['hours'])} cannot tell fewer than {3 * least:.2g} an hour from none (95\u00a0%). "
        "On the right the PSD-ROC, the mean of the classes; the area below it up to "
        f"{found['psd']['most']:g} is {found['psd']['area']:.3f}."
    )
    return Section("Misses and false alarms", says, [page.abreast(det, psd)])


def said(value: float | None) -> str:
    """Seconds, if there are any."""
    return "–" if value is None else f"{value:.2f}\u00a0s"


def wished(events: Figures, split: str) -> Iterator[Section]:
    """Thresholds that were chosen for a wish of false alarms."""
    names = list(dict.fromkeys(("val", split)))
    numbers = ["threshold", *(f"{name} {what}" for name in names for what in ("found", "false"))]
    rows = []
    for label, one in events["val"]["classes"].items():
        counts = [events[name]["classes"][label] for name in names]
        shown = [text for row in counts for text in (f"{row['found']} of {row['true']}", f"{row['false']}")]
        rows.append((label, f"{one['threshold']:.2f}", *shown))
    told = ", ".join(
        f"{name} {events[name]['an_hour']:g} an hour in {60 * events[name]['hours']:.1f} min" for name in names
    )
    wish = "the most events right" if events["wish"] is None else f"at most {events['wish']:g} false alarms an hour"
    says = f"Chosen on a stream of the validation clips for {wish}; false alarms: {told}."
    yield Section("Thresholds", says, [page.table(("class", *numbers), rows, numbers)])


def worst(found: Answers, spec: InputSpec) -> Section | None:
    """The clips whose truth got the lowest scores, to be heard and seen."""
    if not found.worst:
        return None
    rows = [entry(found, exhibit, spec) for exhibit in found.worst]
    says = (
        "The clips whose truth got the lowest scores, as the model heard or saw them; of long ones, the beginning. "
        "Sometimes it is the truth that is wrong."
    )
    columns = "clip", "true class", "score of the true class", "answer", "score of the answer"
    return Section("Worst clips", says, [page.table(columns, rows, (columns[2], columns[4]))])


def entry(found: Answers, exhibit: Exhibit, spec: InputSpec) -> tuple[str, ...]:
    """One of them as a row."""
    place = exhibit.place
    truth, answer = int(found.truth[place]), int(found.answer[place])
    named = page.name(found.names[place] or f"#{place}")
    group = page.tag("span", f"{found.groups[place]}", class_="remark")
    return (
        page.join(shown(exhibit.x, spec), named, group),
        page.short(found.labels[truth], 40),
        f"{found.scores[place, truth]:.3f}",
        page.short(found.labels[answer], 40) + (" (correct)" if answer == truth else ""),
        f"{found.sure[place]:.3f}",
    )
