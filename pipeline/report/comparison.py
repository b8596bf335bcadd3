"""Trainings side by side.

A folder is a run's, or holds runs (of a sweep, of an experiment). Only settings that differ are shown. Runs that differ
in their seed or their fold alone are summed up, too: mean, least, greatest, and the accuracy over all their clips.

Of a database of events (sink=sqlite) a page is made: python -m pipeline.report EVENTS.sqlite --help
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console

import pipeline.report.events as events
import pipeline.report.page as page
from pipeline.core.errors import UNWRITABLE, ConfigError, UserError
from pipeline.core.text import clean
from pipeline.report.charts import plot_lines
from pipeline.report.runs import Family, Run, common_split, find_differences, find_runs, group_families, read_run
from pipeline.report.terminal import make_table
from pipeline.report.training import SPLIT_NAMES

FIRST_COLUMNS, LAST_COLUMNS = ("run", "settings", "val %", "test %"), ("parameters", "MAC/s", "epochs", "s")
STREAM_COLUMNS = "event F1", "false an hour"  # on long recordings
FAMILY_COLUMNS = ("runs", "mean %", "least", "most", "all clips %", "at 95 %", "clips", "groups")
MAX_LINES = 4  # runs whose learning is drawn
MAX_SETTINGS = 6  # of a run on the terminal


def column_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """The columns, with the split that intervals and F1 are of; more, if there were long recordings, or clips could not
    be read.
    """
    split = common_split(runs)
    streams = STREAM_COLUMNS if any("streams" in run.metrics for run in runs) else ()
    lost = ["unreadable"] if any(count_unreadable(run, split) for run in runs) else []
    return (*FIRST_COLUMNS, f"{split} at 95 %", f"{split} F1", *streams, *LAST_COLUMNS, *lost)


def count_unreadable(run: Run, split: str) -> int:
    return int(run.metrics.get(split, {}).get("skipped", 0))


def to_rows(runs: Sequence[Run], most: int | None = None) -> list[tuple[str, ...]]:
    """A row of texts for each run, with at most so many settings; '–' where there is nothing."""
    made, names, folder, split = [], column_names(runs), common_folder(runs), common_split(runs)
    for run, different in zip(runs, find_differences(runs), strict=True):
        settings = [f"{key}={value}" for key, value in different.items()]
        if most is not None and len(settings) > most:
            settings[most:] = [f"and {len(settings) - most} more"]
        row = {"run": str(run.folder.relative_to(folder)), "settings": ", ".join(settings) or "–"}
        row |= figures(run, split) if run.metrics else {"val %": "failed"}
        made.append(tuple(row.get(name, "–") for name in names))
    return made


def figures(run: Run, split: str) -> dict[str, str]:
    """The figures of a run by column."""
    row, found = run.metrics, run.metrics[split]
    shares = {f"{name} %": f"{100 * row[name]['accuracy']:.1f}" for name in ("val", "test") if name in row}
    return shares | {
        f"{split} at 95 %": format_interval(found["interval"]["low"], found["interval"]["high"]),
        f"{split} F1": f"{found['macro_f1']:.3f}",
        **(stream_figures(row["streams"]) if "streams" in row else {}),
        "parameters": f"{row['parameters']:,}",
        "MAC/s": page.format_amount(row["multiply_adds"]),
        "epochs": f"{row['epochs']}",
        "s": f"{row['seconds']:,.0f}",
        "unreadable": f"{count_unreadable(run, split):,}",
    }


def stream_figures(found: Mapping[str, Any]) -> dict[str, str]:
    """Event F1, if there was anything to be found, and false alarms an hour."""
    micro = found["events"]["micro"]
    texts = f"{micro['f1']:.3f}" if micro["truths"] else "–", f"{found['false_an_hour']:,.1f}"
    return dict(zip(STREAM_COLUMNS, texts, strict=True))


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
    names, settings, *figures = zip(*to_rows(runs, MAX_SETTINGS), strict=True)
    heads = [column.replace(" ", "\n", 1) for column in column_names(runs)[2:]]  # to fit 80 characters
    console.print(make_table(f"runs in {place}", ["run", *heads], zip(names, *figures, strict=True), SIMPLE))
    if any(one != "–" for one in settings):
        console.print(make_table("settings that differ", FIRST_COLUMNS[:2], zip(names, settings, strict=True), SIMPLE))
    if found := list(group_families(runs)):
        title = f"the same but for seeds or folds, by their {SPLIT_NAMES[common_split(runs)]} clips"
        console.print(make_table(title, FAMILY_COLUMNS, [family_row(one, place) for one in found], SIMPLE))


def render_comparison(runs: Sequence[Run]) -> str:
    """The comparison as a page."""
    there, split, names = [run for run in runs if run.metrics], common_split(runs), column_names(runs)
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
    percent = page.format_percent
    return page.render(
        "comparison.html",
        facts={"folder": common_folder(runs), "runs": f"{len(runs):,}", "failed": f"{len(runs) - len(there):,}"},
        clips=f"{SPLIT_NAMES[split]} clips",
        tested=split == "test",
        bars=bars,
        columns=names,
        rows=to_rows(runs),
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


def compare(folders: Iterable[Path], out: Path | None = None, failed: Mapping[Path, str] | None = None) -> None:
    """Print the comparison of finished runs, and write it to ``out``. ``failed``: folders of runs without a result, and
    what was set for them. ConfigError for a folder that is no run's.
    """
    runs = [read_run(folder) for folder in folders]
    runs += [Run(folder, {}, {"overrides": overrides}) for folder, overrides in (failed or {}).items()]
    print_comparison(runs)
    if out is not None:
        page.save(out, render_comparison(runs))
        Console().print(f"comparison: {out}", highlight=False, soft_wrap=True, markup=False)


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    try:
        (events.main if any(map(events.is_database, arguments)) else compare_named)(arguments)
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot write {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        return UNWRITABLE
    return 0


def compare_named(arguments: Sequence[str]) -> None:
    """Compare the runs that the arguments name."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m pipeline.report", None, __doc__, formatter_class=formatter, allow_abbrev=False
    )
    parser.add_argument("folders", nargs="*", metavar="RUN", help="a folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a page of the comparison; also out=FILE")
    options = parser.parse_args([f"--{one}" if one.startswith("out=") else one for one in arguments])
    if not options.folders:
        raise ConfigError("no folders; expected python -m pipeline.report RUN RUN ... [out=FILE]")
    compare(find_runs(options.folders), options.out)
