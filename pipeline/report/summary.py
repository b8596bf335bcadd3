"""The summary that a training prints at its end."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.model.file import Promise
from pipeline.report.by_task import describe_task
from pipeline.report.terminal import make_table
from pipeline.report.training import list_thresholds

BARS = " ▁▂▃▄▅▆▇█"
MAX_CURVE = 60  # characters of a curve
CLASS_COLUMNS = "class", "precision", "recall", "F1", "clips", "most often taken for"


def print_summary(metrics: Mapping[str, Any], out: Path, every: bool = False) -> None:
    """Per-class table of the test split (validation, if there is none), the main figures, and the run's files.

    ``every``: all classes make events, so that a stream has nothing that it may pass over.
    """
    console = Console(highlight=False)
    split = "test" if "test" in metrics else "val"
    found = metrics[split]
    lost = f" ({found['skipped']} more could not be read)" if found["skipped"] else ""
    if "interval" in found:
        low, high = (f"{100 * found['interval'][side]:.1f}" for side in ("low", "high"))
        right = f"{found['accuracy']:.1%} ({low} to {high} at 95 %)"
    title = f"{split}: {found['count']} {'strings' if 'token_error' in found else 'clips'}{lost}"
    if "mae" in found:
        title += f", R2 {found['r2']:.3f}"
    elif "nmi" in found:
        title += "" if found["nmi"] is None else f", NMI {found['nmi']:.3f}, ARI {found['ari']:.3f}"
    elif "map" in found:
        steps = "" if found["frame_map"] is None else f", of steps {found['frame_map']:.3f}"
        title += f", mAP {found['map']:.3f}{steps}, exactly right {right}"
    elif "token_error" in found:
        title += f", token error {found['token_error']:.1%}, right {right}"
    else:
        title += f", accuracy {right}"
    classes: dict[str, Any] = {"columns": CLASS_COLUMNS, "rows": class_rows(found)}
    table = next(filter(None, describe_task(found).values()), classes)
    console.print(make_table(title, table["columns"], table["rows"]))
    if "auroc" in found:
        console.print(describe_novelty(found))
    if "accuracy" in found["online"]:
        console.print(describe_online(found["online"]))
    if events := metrics.get("events"):
        console.print(make_table(alarm_title(events, split), *list_thresholds(events, split)))
        if "silence" in events:
            console.print(describe_silence(events["silence"]))
        if "promise" in events:
            console.print(f"false alarms: {Promise(**events['promise'])}")
    if "streams" in metrics:
        console.print(describe_streams(metrics["streams"]))
    kept = f"epoch {metrics['best_epoch']} of {metrics['epochs']} was kept"
    console.print(f"{metrics['parameters']:,} parameters; {kept}; {metrics['seconds']} s in all")
    if every:
        console.print("on streams every class makes events, also of silence: a class `background` would be passed over")
    console.print(f"report: {out / 'report.html'}", soft_wrap=True, markup=False)
    console.print(f"run folder: {out}", soft_wrap=True, markup=False)


def describe_novelty(found: Mapping[str, Any]) -> str:
    """How well what is unusual stands apart, and what of what is normal was expected."""
    areas = {"clips": found["auroc"], "clips, up to 10 % false": found["pauc"], "steps": found["frame_auroc"]}
    known = ", ".join(f"{name} {area:.3f}" for name, area in areas.items() if area is not None)
    return f"AUROC: {known or 'nothing unusual is known'}; of the variance {found['explained']:.1%} was expected"


def describe_streams(streams: Mapping[str, Any]) -> str:
    """What was found in long recordings."""
    micro, late = streams["events"]["micro"], streams["latency"]
    if not micro["truths"]:
        false = f"{streams['false_an_hour']:.1f} false alarms an hour"
        return f"streams, {60 * streams['hours']:.1f} min without events: {false}"
    missed = f"{streams['missed']:.1%} missed, " if streams["missed"] is not None else ""
    after = f", {late['p50']:.2f} s after they begin (median)" if late["count"] else ""
    return (
        f"streams, {60 * streams['hours']:.1f} min: event F1 {micro['f1']:.3f} ({micro['hits']} hits of "
        f"{micro['truths']} true, {micro['answers']} found), {missed}{streams['false_an_hour']:.1f} false alarms an "
        f"hour{after}"
    )


def describe_silence(silence: Mapping[str, Any]) -> str:
    """What was found for some rates of false alarms, and how many are to be expected."""
    rates = ", ".join(f"{row['found'] / max(1, row['true']):.1%} at {row['wish']:g}" for row in silence["misses"])
    found = f"found {rates} false alarms an hour" if rates else "no thresholds keep to 10 false alarms an hour"
    chosen = f"; chosen: expected {silence['chosen']['expected']:.2g} an hour" if silence["chosen"] else ""
    return f"silence, {60 * silence['hours']:.1f} min of negatives: {found}{chosen}"


def class_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The classes of a split and what each of them is most often taken for."""
    labels = list(found["classes"])
    for index, (label, row) in enumerate(found["classes"].items()):
        if not row["support"] and not any(answers[index] for answers in found["confusion"]):
            continue  # a background of scenes alone
        wrong = [count if other != index else 0 for other, count in enumerate(found["confusion"][index])]
        worst = f"{labels[wrong.index(max(wrong))]} ({max(wrong)})" if any(wrong) else ""
        yield label, *(f"{row[key]:.2f}" for key in ("precision", "recall", "f1")), str(row["support"]), worst


def alarm_title(events: Mapping[str, Any], split: str) -> str:
    """How many false alarms there are with the thresholds that were chosen."""
    rates = ", ".join(
        f"{name}: {events[name]['an_hour']:g} an hour ({events[name]['false']} in {60 * events[name]['hours']:.1f} min)"
        for name in dict.fromkeys(("val", split))
    )
    wish = "" if events["wish"] is None else f", wished {events['wish']:g} an hour"
    return f"false alarms{wish}; {rates}"


def describe_online(online: Mapping[str, Any]) -> str:
    """How soon a stream's answer is right, as a curve and in figures."""
    accuracy, step = online["accuracy"], online["step"]
    if not accuracy:
        return ""
    marks = [*(count for count in (1, 4, 16, 64, 256) if count < len(accuracy)), len(accuracy)]
    figures = ", ".join(f"{count * step:.2g} s {accuracy[count - 1]:.0%}" for count in marks)
    columns = [accuracy[round(place)] for place in np.linspace(0, len(accuracy) - 1, min(MAX_CURVE, len(accuracy)))]
    curve = "".join(BARS[round(value * (len(BARS) - 1))] for value in columns)
    return f"right answers after {figures}\n0 s {curve} {len(accuracy) * step:.2g} s"
