"""What a training run says at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.text import clean

BARS = " ▁▂▃▄▅▆▇█"
CURVE = 60  # characters of a curve, at most


def print_summary(metrics: Mapping[str, Any], out: Path, every: bool = False) -> None:
    """Per-class table of the test split (validation, if there is none), the main figures, and the run's files.

    ``every``: all classes make events, so that a stream has nothing that it may pass over.
    """
    console = Console()
    split = "test" if "test" in metrics else "val"
    found = metrics[split]
    low, high = (f"{100 * found['interval'][side]:.1f}" for side in ("low", "high"))
    lost = f" ({found['skipped']} more could not be read)" if found["skipped"] else ""
    title = f"{split}: {found['count']} clips{lost}, accuracy {found['accuracy']:.1%} ({low} to {high} at 95 %)"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for column in ("precision", "recall", "F1", "clips"):
        table.add_column(column, justify="right")
    table.add_column("most often taken for")
    for index, (label, row) in enumerate(found["classes"].items()):
        if not row["support"] and not any(answers[index] for answers in found["confusion"]):
            continue  # a background of scenes alone
        wrong = [count if other != index else 0 for other, count in enumerate(found["confusion"][index])]
        worst = f"{list(found['classes'])[wrong.index(max(wrong))]} ({max(wrong)})" if any(wrong) else ""
        numbers = (f"{row[key]:.2f}" for key in ("precision", "recall", "f1"))
        table.add_row(Text(clean(label)), *numbers, str(row["support"]), Text(clean(worst)))
    console.print(table)
    console.print(describe_online(found["online"]), highlight=False)
    if "events" in metrics:
        console.print(alarm_table(metrics["events"], split))
    if "streams" in metrics:
        console.print(describe_streams(metrics["streams"]), highlight=False)
    console.print(
        f"{metrics['parameters']:,} parameters, of {metrics['epochs']} epochs number {metrics['best_epoch']} was kept, "
        f"{metrics['seconds']} s in all",
        highlight=False,
    )
    if every:
        console.print("on streams every class makes events, also of silence: a class `background` would be passed over")
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"run folder: {out}", highlight=False, soft_wrap=True, markup=False)


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


def alarm_table(events: Mapping[str, Any], split: str) -> Table:
    """The thresholds that were chosen, and what they give on the streams of clips they were chosen and tried on."""
    splits = list(dict.fromkeys(("val", split)))
    said = ", ".join(
        f"{name}: {events[name]['an_hour']:g} an hour ({events[name]['false']} in {60 * events[name]['hours']:.1f} min)"
        for name in splits
    )
    wish = "" if events["wish"] is None else f", wished {events['wish']:g} an hour"
    table = Table(title=f"false alarms{wish}; {said}", title_justify="left")
    for column in ("class", "threshold", *(f"{name} {what}" for name in splits for what in ("found", "false"))):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label, row in events["val"]["classes"].items():
        rows = [events[name]["classes"][label] for name in splits]
        counts = [text for one in rows for text in (f"{one['found']} of {one['true']}", str(one["false"]))]
        table.add_row(Text(clean(label)), f"{row['threshold']:.2f}", *counts)
    return table


def describe_online(online: Mapping[str, Any]) -> str:
    """How soon a stream's answer is right, as a curve and in figures."""
    accuracy, step = online["accuracy"], online["step"]
    if not accuracy:
        return ""
    marks = [2**power for power in range(len(accuracy).bit_length()) if 2**power < len(accuracy)] + [len(accuracy)]
    figures = ", ".join(f"{count * step:.2g} s {accuracy[count - 1]:.1%}" for count in marks)
    columns = [accuracy[round(place)] for place in np.linspace(0, len(accuracy) - 1, min(CURVE, len(accuracy)))]
    curve = "".join(BARS[round(value * (len(BARS) - 1))] for value in columns)
    return f"right answers after {figures}\n0 s {curve} {len(accuracy) * step:.2g} s"
