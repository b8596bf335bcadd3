"""Trainings side by side.

A folder is a run's, or holds runs (of a sweep, of an experiment). Only settings that differ are shown. Runs that differ
in their seed or their fold alone are summed up, too: mean, least, greatest, and the accuracy over all their clips.

Of a database of events (sink=sqlite), or of its newest part, a page is made: by label and hour, with clips to be played
where there are any (sink=clips).
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console

import pipeline.report.page as page
from pipeline.core.atomic import write_text
from pipeline.core.errors import USAGE
from pipeline.core.program import fail, guard
from pipeline.report.charts import plot_lines
from pipeline.report.events import is_database, write_events
from pipeline.report.runs import Family, Run, common_split, find_differences, find_runs, group_families, read_run
from pipeline.report.terminal import make_table
from pipeline.report.training import SPLIT_NAMES

FAMILY_COLUMNS = ("runs", "mean %", "least", "most", "all clips %", "at 95 %", "clips", "groups")
MAX_LINES = 4  # runs whose learning is drawn
MAX_SETTINGS = 6  # of a run on the terminal


def tabulate(runs: Sequence[Run], most: int | None = None) -> tuple[list[str], list[tuple[str, ...]]]:
    """The columns, and a row of texts for each run, with at most so many settings; '–' where there is nothing. A column
    that no run has is left out.
    """
    folder, split = common_folder(runs), common_split(runs)
    made: list[dict[str, str]] = []
    for run, different in zip(runs, find_differences(runs), strict=True):
        settings = [f"{key}={value}" for key, value in different.items()]
        if most is not None and len(settings) > most:
            settings[most:] = [f"and {len(settings) - most} more"]
        row = {"run": str(run.folder.relative_to(folder)), "settings": ", ".join(settings)}
        made.append(row | (describe(run.metrics, split) if run.metrics else {"val %": "failed"}))
    every = dict.fromkeys(name for row in made for name in row)
    names = [name for name in every if name == "settings" or any(row.get(name) for row in made)]
    return names, [tuple(row.get(name) or "–" for name in names) for row in made]


def describe(row: Mapping[str, Any], split: str) -> dict[str, str]:
    """The figures of a run by column, with the split that intervals and F1 are of; '' where there is nothing."""
    found, streams = row[split], row.get("streams")
    event_f1 = streams["events"]["micro"]["f1"] if streams and streams["events"]["micro"]["truths"] else None
    return {
        **{f"{name} %": f"{100 * row[name]['accuracy']:.1f}" if name in row else "" for name in ("val", "test")},
        f"{split} mAP": f"{found['map']:.3f}" if "map" in found else "",
        f"{split} token error %": f"{100 * found['token_error']:.1f}" if "token_error" in found else "",
        f"{split} at 95 %": format_interval(found["interval"]["low"], found["interval"]["high"]),
        f"{split} F1": f"{found['macro_f1']:.3f}",
        "event F1": "" if event_f1 is None else f"{event_f1:.3f}",
        "false an hour": f"{streams['false_an_hour']:,.1f}" if streams else "",
        "parameters": f"{row['parameters']:,}",
        "MAC/s": page.format_amount(row["multiply_adds"]),
        "epochs": f"{row['epochs']}",
        "s": f"{row['seconds']:,.0f}",
        "unreadable": f"{found['skipped']:,}" if found.get("skipped") else "",
    }


def format_interval(low: float, high: float) -> str:
    """An interval in per cent."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def common_folder(runs: Sequence[Run]) -> Path:
    """The folder that all runs are in."""
    return Path(os.path.commonpath([run.folder.parent for run in runs]))


def family_row(family: Family, place: Path) -> tuple[str, ...]:
    """A family as texts."""
    first, *_, last = [str(run.folder.relative_to(place)) for run in family.runs]
    shares = (f"{100 * value:.1f}" for value in (family.mean, family.least, family.most, family.pooled))
    who = f"{len(family.runs)} {family.varied}: {first} … {last}"
    return who, *shares, format_interval(*family.pooled_interval), f"{family.clips:,}", f"{family.groups:,}"


def print_comparison(runs: Sequence[Run]) -> None:
    """Print the comparison on the terminal."""
    console, place = Console(), common_folder(runs)
    columns, rows = tabulate(runs, MAX_SETTINGS)
    heads = [column.replace(" ", "\n", 1) for column in columns[2:]]  # to fit 80 characters
    figures = ((name, *shown) for name, _, *shown in rows)
    console.print(make_table(f"runs in {place}", ["run", *heads], figures, SIMPLE))
    if any(row[1] != "–" for row in rows):
        console.print(make_table("settings that differ", columns[:2], (row[:2] for row in rows), SIMPLE))
    if found := list(group_families(runs)):
        title = f"the same but for seeds or folds, by their {SPLIT_NAMES[common_split(runs)]} clips"
        console.print(make_table(title, FAMILY_COLUMNS, [family_row(one, place) for one in found], SIMPLE))


def render_comparison(runs: Sequence[Run]) -> str:
    """The comparison as a page."""
    there, split, percent = [run for run in runs if run.metrics], common_split(runs), page.format_percent
    columns, rows = tabulate(runs)
    bars = [
        (
            ", ".join([run.folder.name, *(f"{key}={value}" for key, value in settings.items())]),
            run.metrics[split]["accuracy"],
            page.format_share(run.metrics[split]["accuracy"]),
            format_interval(*(run.metrics[split]["interval"][side] for side in ("low", "high"))),
        )
        for run, settings in zip(runs, find_differences(runs), strict=True)
        if run.metrics
    ]
    lines = {run.folder.name: read_accuracies(run) for run in there[:MAX_LINES]}
    return page.render(
        "comparison.html",
        facts={"folder": common_folder(runs), "runs": f"{len(runs):,}", "failed": f"{len(runs) - len(there):,}"},
        clips=f"{SPLIT_NAMES[split]} clips",
        tested=split == "test",
        bars=bars,
        columns=columns,
        rows=rows,
        family_columns=FAMILY_COLUMNS,
        families=[family_row(one, common_folder(runs)) for one in group_families(runs)],
        learning=plot_lines(lines, "epoch", "Validation accuracy by epoch", (0, 1), (), percent, whole=True)
        if lines
        else None,
        drawn=MAX_LINES if len(there) > MAX_LINES else None,
    )


def read_accuracies(run: Run) -> list[tuple[float, float]]:
    """Validation accuracy by epoch, as far as the history can be read."""
    try:
        with open(run.folder / "history.jsonl", encoding="utf-8") as file:
            history: list[Any] = [json.loads(line) for line in file]
        return [(float(row["epoch"]), float(row["val_accuracy"])) for row in history]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def compare(folders: Iterable[Path], out: Path | None = None, failed: Mapping[Path, str] | None = None) -> int:
    """Print the comparison of finished runs, and write it to ``out``; 0. ``failed``: folders of runs without a result,
    and what was set for them. ConfigError for a folder that is no run's.
    """
    runs = [read_run(folder) for folder in folders]
    runs += [Run(folder, {}, {"overrides": overrides}) for folder, overrides in (failed or {}).items()]
    print_comparison(runs)
    if out is not None:
        write_text(out, render_comparison(runs))
        Console().print(f"comparison: {out}", highlight=False, soft_wrap=True, markup=False)
    return 0


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    parser = argparse.ArgumentParser("python -m pipeline.report", None, __doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("places", nargs="*", metavar="RUN", help="folders, or one database: EVENTS.sqlite")
    parser.add_argument("--since", help="of a database: 12h, 7d, all, or a date such as 2026-11-29 (default: 1d)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default of a database: EVENTS.html)")
    options = parser.parse_args([f"--{one}" if one.startswith(("out=", "since=")) else one for one in arguments])
    places, out = options.places, options.out.expanduser() if options.out else None
    if len(places) == 1 and is_database(places[0]):
        path = Path(places[0]).expanduser()
        return guard(lambda: write_events(path, options.since or "1d", out or path.with_suffix(".html")))
    if not places or options.since or any(map(is_database, places)):
        usage = "python -m pipeline.report RUN RUN ... [out=FILE], or EVENTS.sqlite [since=7d] [out=FILE]"
        return fail(f"got {' '.join(arguments) or 'no folders'}; expected {usage}", USAGE)
    return guard(lambda: compare(find_runs(places), out))
