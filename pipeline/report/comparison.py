"""Trainings side by side: `python -m pipeline.report runs/a runs/b ... [out=comparison.html]`.

A folder is a run's, or holds runs (of a sweep, of an experiment). Only settings that differ are shown. Runs that differ
in their seed or their fold alone are summed up, too: mean, least, greatest, and the accuracy over all their clips.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pipeline.report.charts as charts
import pipeline.report.page as page
from pipeline.core.errors import UNWRITABLE, USAGE, ConfigError, UserError
from pipeline.core.text import clean
from pipeline.report.page import Html, Section
from pipeline.report.runs import Family, Run, counted, differing, families, found_in, read
from pipeline.report.training import KINDS, amount

FIRST, LAST = ("run", "settings", "val %", "test %"), ("parameters", "MAC/s", "epochs", "s")
HEARD = "event F1", "false an hour"  # on long recordings
SPREAD = ("runs", "mean %", "least", "most", "all clips %", "at 95 %", "clips", "groups")
LINES = 4  # runs whose learning is drawn
TOLD = 6  # settings of a run on the terminal


def columns(runs: Sequence[Run]) -> tuple[str, ...]:
    """The columns, with the split that intervals and F1 are of; more, if there were long recordings, or clips could not
    be read.
    """
    split = counted(runs)
    heard = HEARD if any("streams" in run.metrics for run in runs) else ()
    lost = ["unreadable"] if any(unread(run, split) for run in runs) else []
    return (*FIRST, f"{split} at 95 %", f"{split} F1", *heard, *LAST, *lost)


def unread(run: Run, split: str) -> int:
    """How many clips of a split a run could not read; 0 of one that does not tell."""
    return int(run.metrics.get(split, {}).get("skipped", 0))


def rows(runs: Sequence[Run], most: int | None = None) -> list[tuple[str, ...]]:
    """The runs as texts, a row for each with so many settings at ``most``; '–' where there is nothing."""
    made = []
    names = columns(runs)
    wide = len(names)
    place, counts = common(runs), counted(runs)
    for run, different in zip(runs, differing(runs), strict=True):
        name, told = str(run.folder.relative_to(place)), [f"{key}={value}" for key, value in different.items()]
        more = [f"and {len(told) - most} more"] if most is not None and len(told) > most else []
        settings = ", ".join([*told[:most], *more])
        if not run.metrics:
            made.append((name, settings or "–", "failed", *["–"] * (wide - 3)))
            continue
        row, found = run.metrics, run.metrics[counts]
        limits = between(found["interval"]["low"], found["interval"]["high"])
        accuracies = (f"{100 * row[split]['accuracy']:.1f}" if split in row else "–" for split in ("val", "test"))
        numbers = f"{row['parameters']:,}", amount(row["multiply_adds"]), f"{row['epochs']}", f"{row['seconds']:,.0f}"
        heard = on_streams(row.get("streams")) if HEARD[0] in names else ()
        lost = f"{unread(run, counts):,}"
        figures = *accuracies, limits, f"{found['macro_f1']:.3f}", *heard, *numbers, lost
        made.append((name, settings or "–", *figures)[:wide])
    return made


def on_streams(found: Mapping[str, Any] | None) -> tuple[str, str]:
    """Event F1, if there was anything to be found, and false alarms an hour."""
    if not found:
        return "–", "–"
    micro = found["events"]["micro"]
    return f"{micro['f1']:.3f}" if micro["truths"] else "–", f"{found['false_an_hour']:,.1f}"


def between(low: float, high: float) -> str:
    """An interval in per cent."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def common(runs: Sequence[Run]) -> Path:
    """The folder that all runs are in."""
    return Path(os.path.commonpath([run.folder.parent for run in runs]))


def spread(family: Family, place: Path) -> tuple[str, ...]:
    """A family as texts."""
    first, *_, last = [str(run.folder.relative_to(place)) for run in family.runs]
    shares = (f"{100 * value:.1f}" for value in (family.mean, family.least, family.most, family.pooled))
    who = f"{len(family.runs)} {family.varied}: {first} … {last}"
    return who, *shares, between(*family.pooled_interval), f"{family.clips:,}", f"{family.groups:,}"


def shown(runs: Sequence[Run]) -> None:
    """The comparison on the terminal. What files have put into it does not get at the terminal."""
    console = Console()
    place = common(runs)
    names, settings, *figures = zip(*rows(runs, TOLD), strict=True)
    told = (FIRST[0], *(column.replace(" ", "\n", 1) for column in columns(runs)[2:]))  # 80 characters are few
    console.print(printed(f"runs in {place}", told, zip(names, *figures, strict=True)))
    if any(one != "–" for one in settings):
        console.print(printed("settings that differ", FIRST[:2], zip(names, settings, strict=True)))
    if found := list(families(runs)):
        title = f"the same but for seeds or folds, by their {KINDS[counted(runs)]} clips"
        console.print(printed(title, SPREAD, [spread(one, place) for one in found]))


def printed(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """A table for the terminal."""
    table = Table(title=Text(clean(title)), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in columns:
        words = column in ("run", "runs", "settings")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for line in lines:
        table.add_row(*(Text(clean(text)) for text in line))
    return table


def written(runs: Sequence[Run]) -> str:
    """The comparison as a page."""
    different, there, counts = differing(runs), [run for run in runs if run.metrics], counted(runs)
    bars = [
        (
            ", ".join([run.folder.name, *(f"{key}={value}" for key, value in settings.items())]),
            run.metrics[counts]["accuracy"],
            page.share(run.metrics[counts]["accuracy"]),
            between(*(run.metrics[counts]["interval"][side] for side in ("low", "high"))),
        )
        for run, settings in zip(runs, different, strict=True)
        if run.metrics
    ]
    linked = [(page.name(line[0]), *line[1:]) for line in rows(runs)]
    clips = f"{KINDS[counts]} clips" + ("" if counts == "test" else ", as not all were tested")
    says = f"Of the {clips}, and 95\u00a0% intervals."
    told = "Settings that differ, and figures; F1 and intervals are of those clips, too."
    sections = [
        Section("Accuracy", says, [page.bars(bars)]),
        Section("Runs", told, [page.table(columns(runs), linked, columns(runs)[2:])]),
    ]
    if found := list(families(runs)):
        says = (
            f"Runs that differ in their seed or fold alone, by their {KINDS[counts]} clips. Over all clips: one that "
            "several runs answered counts once, with the share of them that was right."
        )
        sections.append(
            Section(
                "Seeds and folds", says, [page.table(SPREAD, [spread(one, common(runs)) for one in found], SPREAD[1:])]
            )
        )
    if lines := {run.folder.name: learnt(run) for run in there[:LINES]}:
        epochs = charts.numbered(epoch for line in lines.values() for epoch, _ in line)
        drawn = charts.lines(lines, "epoch", "Validation accuracy by epoch", (0, 1), epochs, page.percent)
        more = f" Of the first {LINES} runs." if len(there) > LINES else ""
        sections.append(Section("Learning", f"Validation accuracy by epoch.{more}", [drawn]))
    head: Html = page.facts(
        {"folder": str(common(runs)), "runs": f"{len(runs):,}", "failed": f"{len(runs) - len(there):,}"}
    )
    return page.page("Trainings compared", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}", sections, [head])


def learnt(run: Run) -> list[tuple[float, float]]:
    """Validation accuracy by epoch, as far as the history can be read."""
    try:
        with open(run.folder / "history.jsonl", encoding="utf-8") as file:
            history: list[Any] = [json.loads(line) for line in file]
        return [(float(row["epoch"]), float(row["val_accuracy"])) for row in history]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def compared(folders: Iterable[Path], out: Path | None = None, failed: Mapping[Path, str] | None = None) -> None:
    """Print the comparison of finished runs, and write it to ``out``. ``failed``: folders of runs without a result, and
    what was set for them. ConfigError for a folder that is no run's.
    """
    runs = [read(folder) for folder in folders]
    runs += [Run(folder, {}, {"overrides": said}) for folder, said in (failed or {}).items()]
    shown(runs)
    if out is not None:
        page.save(out, written(runs))
        Console().print(f"comparison: {out}", highlight=False, soft_wrap=True, markup=False)


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    folders, out, rest = list[str](), None, list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("-h", "--help"):
            print(__doc__)
            return 0
        if argument == "--out" and rest:
            out = Path(rest.pop(0))
        elif argument.startswith(("out=", "--out=")):
            out = Path(argument.partition("=")[2])
        elif argument.startswith("-"):
            print(f"error: {clean(argument)}: no such option; expected folders and out=FILE", file=sys.stderr)
            return USAGE
        else:
            folders.append(argument)
    try:
        if not folders:
            raise ConfigError("no folders; expected python -m pipeline.report RUN RUN ... [out=FILE]")
        compared(found_in(folders), out)
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot write {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        return UNWRITABLE
    return 0
