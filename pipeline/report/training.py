"""The page about a training: how good the model is, how sure that is, what it costs, and what it gets wrong."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import pipeline.report.page as page
from pipeline.media.input_spec import InputSpec
from pipeline.model.file import Promise
from pipeline.report.accuracy import describe
from pipeline.report.by_task import Figures, describe_task
from pipeline.report.charts import Drawing, Plot, draw_outlines, plot_lines, plot_scores, to_stairs
from pipeline.report.clips import embed_clip
from pipeline.report.runs import flatten
from pipeline.report.silence import Table, describe_silence, plot_det
from pipeline.tasks.predictions import Predictions

MAX_HISTOGRAMS = 24  # classes that have a histogram each
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
LEARNING = {  # the figures that are drawn by epoch, by plot and name
    "Losses": {"training loss": "train_loss", "validation loss": "val_loss"},
    "Accuracies": {"training accuracy": "train_accuracy", "validation accuracy": "val_accuracy"},
    "Expected share of the variance": {"training": "train_explained", "validation": "val_explained"},
    "Symbols": {"1 less the token error rate, validation": "val_token_accuracy"},
    "Mean average precision": {"clips": "val_map", "steps": "val_frame_map"},
    "R2": {"clips": "val_r2"},
    "Mean absolute error": {"clips": "val_mae"},
    "Learning rate": {"learning rate": "lr"},
    "False alarms": {"an hour, on negatives held out": "val_false_alarms"},
}


def render_training(
    metrics: Figures, history: Sequence[Figures], found: Mapping[str, Predictions], spec: InputSpec, folder: Path
) -> str:
    """The page of the run in ``folder``: ``metrics`` as in metrics.json, ``history`` with a row for each epoch,
    predictions by split.
    """
    split = "test" if "test" in found else "val"
    row, overrides, events = metrics[split], metrics.get("overrides"), metrics.get("events", {})
    promise = events.get("promise")
    given = [one for one in overrides or () if not one.startswith("trainer.resume=")]
    return page.render(
        "training.html",
        title=title_of(str(metrics["settings"].get("name", "")), folder.resolve()),
        metrics=metrics,
        split=split,
        other="val" if split == "test" and "val" in metrics else "",
        row=row,
        clips=list(clip_tiles(metrics, split)),
        accuracy=describe_split(row) if "confusion" in row else None,
        **describe_task(row),
        scores=plot_answers(row["scores"]) if "confusion" in row else None,
        small=list(outline_classes(row["scores"]["classes"])) if "scores" in row else [],
        online=plot_online(row["online"]) if "accuracy" in row["online"] else None,
        learning=plot_learning(history),
        curves=plot_curves(metrics["streams"]) if "streams" in metrics else None,
        thresholds=list_thresholds(metrics["events"], split) if "events" in metrics else None,
        silence=describe_silence(events["silence"]) if "silence" in events else None,
        promise=str(Promise(**promise)) if promise else None,
        worst=list(list_worst(found[split], spec)),
        command=None if overrides is None else shlex.join(["python", "train.py", *given]),
        settings=flatten(metrics["settings"]),
    )


def title_of(name: str, folder: Path) -> str:
    """Which training a page is about: its name, which many have in common, and its folder; the folder of a trial is a
    number, so the sweep's is named, too.
    """
    run = f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name
    return f"Training: {name}, run {run}" if name else f"Training: run {run}"


def clip_tiles(metrics: Figures, split: str) -> Iterator[tuple[str, str, str]]:
    """How many clips there are of each kind as (number, name, remark); first those of ``split``, which the figures are
    of.
    """
    row, groups = metrics[split], metrics.get("groups", {})
    lost = metrics.get("unreadable", {}) | {split: row["skipped"]}
    others = {name: count for name, count in metrics.get("clips", {}).items() if count and name != split}
    for name, count in {split: row["count"], **others}.items():
        origin = [f"from {groups[name]:,} {'groups' if groups[name] > 1 else 'group'}"] if name in groups else []
        length = [f"{page.format_duration(row['seconds'])} in all"] if name == split else []
        missing = [f"{lost[name]:,} unreadable"] if lost.get(name) else []
        yield f"{count:,}", f"{SPLIT_NAMES[name]} clips", "; ".join([*origin, *length, *missing])


def describe_split(row: Figures) -> Figures:
    """Classes, confusions and calibration of a split."""
    matrix = np.array(row["confusion"], np.int64)
    pairs = np.flatnonzero(matrix)
    met = np.logical_or(matrix.any(0), matrix.any(1)).tolist()  # a background of scenes alone has no clips
    rows = [
        (label, one["precision"], one["recall"], one["f1"], one["support"])
        for (label, one), there in zip(row["classes"].items(), met, strict=True)
        if there
    ]
    bins = np.array([row["calibration"]["bins"][key] for key in ("count", "right", "score")], np.float64)
    return {"hits": int(matrix.trace())} | describe(rows, list(row["classes"]), pairs, matrix.reshape(-1)[pairs], bins)


def plot_answers(scores: Figures) -> Plot:
    """How sure right and wrong answers are."""
    return plot_scores({key: scores[key] for key in ("right", "wrong")}, "score of the answer", "Clips by score")


def outline_classes(classes: Figures) -> Iterator[tuple[str, Drawing]]:
    """Of few classes, the scores for their own clips and for all others."""
    for label, one in classes.items() if len(classes) <= MAX_HISTOGRAMS else ():
        yield label, draw_outlines([one["own"], one["others"]], f"Scores of {label}")


def plot_online(online: Figures) -> Plot | None:
    """How soon the answers are right."""
    line = [((place + 1) * online["step"], value) for place, value in enumerate(online["accuracy"])]
    axis, label = "seconds heard or seen", "Accuracy over time"
    return plot_lines({"right answers": line}, axis, label, (0, 1), (), page.format_percent) if len(line) > 1 else None


def plot_learning(history: Sequence[Figures]) -> list[Plot]:
    """Losses, accuracies and the learning rate by epoch."""
    made = []
    for label, keys in LEARNING.items():
        lines = {
            name: [(row["epoch"], row[key]) for row in history if isinstance(row.get(key), int | float)]
            for name, key in keys.items()
        }
        if not any(lines.values()):
            continue  # of another task
        lines = {name: line for name, line in lines.items() if line}
        share = label in ("Accuracies", "Symbols", "Mean average precision")
        limits, number = ((0, 1), page.format_percent) if share else (None, page.format_number)
        made.append(plot_lines(lines, "epoch", label, limits, (), number, whole=True))
    return made


def plot_curves(found: Figures) -> Figures | None:
    """What other thresholds would give on long recordings; None if there was nothing to be found in them."""
    if found["missed"] is None:
        return None
    stairs = to_stairs([(x, y) for x, y in found["psd"]["points"]])
    axis = "false alarms an hour and class"
    return {
        "least": f"{3 / found['hours']:.2g}",
        "det": plot_det([(false, missed) for _, false, missed in found["det"]], found["hours"], "all"),
        "psd": plot_lines({"found": stairs}, axis, "PSD-ROC", (0, 1), (), page.format_percent),
    }


def list_thresholds(events: Figures, split: str) -> Table:
    """The thresholds that were chosen, and what they give on the streams of clips on which they were chosen and tried:
    columns and rows.
    """
    splits = list(dict.fromkeys(("val", split)))
    columns = ["class", "threshold", *(f"{name} {what}" for name in splits for what in ("found", "false"))]
    rows = []
    for label, one in events["val"]["classes"].items():
        counts = [events[name]["classes"][label] for name in splits]
        texts = (text for row in counts for text in (f"{row['found']} of {row['true']}", f"{row['false']}"))
        rows.append((label, f"{one['threshold']:.2f}", *texts))
    return columns, rows


def list_worst(found: Predictions, spec: InputSpec) -> Iterator[Figures]:
    """The clips whose truth got the lowest scores, to be heard and seen."""
    for clip in found.worst:
        truth, answer = found.told(clip.row)
        yield {
            "tracks": embed_clip(clip.x, spec),
            "name": found.names[clip.row] or f"#{clip.row}",
            "group": found.groups[clip.row],
            "truth": truth,
            "truth_score": found.of_truth[clip.row],
            "answer": answer,
            "correct": found.correct[clip.row],
            "score": found.confidence[clip.row],
        }
