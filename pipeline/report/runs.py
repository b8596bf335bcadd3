"""Finished trainings, read back from their folders and put side by side."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.settings import dotted
from pipeline.model.file import DEFAULTS
from pipeline.tasks.uncertainty import Interval, interval

METRICS_FILE, ANSWERS_FILE = "metrics.json", "answers.jsonl"
TARGET = "_target_"
REPEATED_KEYS = ("seed", "dataset.fold")  # settings in which runs of one family differ
IGNORED_KEYS = ("trainer.resume", "name")  # settings that change nothing


@dataclass(frozen=True)
class Run:
    """A run's folder. ``metrics``: metrics.json, empty for a run that failed; ``settings`` by dotted key; ``right``:
    by split, of each clip its group and its name ('' if unknown), and whether it was answered right.
    """

    folder: Path
    metrics: Mapping[str, Any]
    settings: Mapping[str, str]
    right: Mapping[str, Sequence[tuple[str, str, bool]]] = field(default_factory=dict)


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings by dotted keys, as they are written on a command line."""
    return {key: "null" if value is None else str(value) for key, value in dotted(settings).items()}


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """The runs' folders among some: each itself, or the runs right in it (of a sweep, of an experiment).

    ConfigError for a folder that is and holds no run.
    """
    found: list[Path] = []
    for given in folders:
        folder = Path(given).expanduser().resolve()
        inside = [path.parent for path in folder.glob(f"*/{METRICS_FILE}")] if folder.is_dir() else []
        if (folder / METRICS_FILE).is_file():
            inside = [folder]
        if not inside:
            why = "holds no finished run" if folder.is_dir() else "is no folder"
            raise ConfigError(f"{str(given)!r} {why}; expected a run's folder, with {METRICS_FILE} in it")
        found += sorted(inside, key=lambda path: (len(path.name) if path.name.isdigit() else 99, path.name))
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> Run:
    """A finished run. ConfigError if its files are missing, broken, or of another version."""
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        settings = flatten(DEFAULTS | metrics["settings"])
        _ = [float(metrics[key]) for key in ("parameters", "multiply_adds", "epochs", "seconds")]
        if "interval" not in metrics["val"]:
            raise ConfigError(f"{str(folder)!r} has no accuracy, by which runs are compared; read its metrics.json")
        for split in (metrics["val"], *([metrics["test"]] if "test" in metrics else [])):
            _ = [float(split["interval"][side]) for side in ("low", "high")]
            _ = [float(split[key]) for key in ("accuracy", "macro_f1")], int(split.get("skipped", 0))
        right: dict[str, list[tuple[str, str, bool]]] = {}
        if (folder / ANSWERS_FILE).is_file():
            with open(folder / ANSWERS_FILE, encoding="utf-8") as file:
                for row in map(json.loads, file):
                    own = str(row["group"]), str(row["name"]), row["truth"] == row["answer"]
                    right.setdefault(str(row["split"]), []).append(own)
    except FileNotFoundError:
        raise ConfigError(f"{str(folder)!r} is no run's folder: it has no {METRICS_FILE}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{str(folder)!r} cannot be compared: is broken or of another version ({error!r})") from None
    return Run(folder, metrics, settings, right)


def common_split(runs: Sequence[Run]) -> str:
    """The split by which runs are compared: the test, if all that have not failed were tested."""
    return "test" if all("test" in run.metrics for run in runs if run.metrics) else "val"


def find_differences(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The settings of each run in which the runs differ, without those that change nothing; of a run that failed, what
    is known.

    Where runs have different components (``cell._target_``), that is the difference, besides options that all of these
    components have, and those in which runs with the same component differ.
    """
    done = [run for run in runs if run.metrics]
    keys = list(dict.fromkeys(key for run in done for key in run.settings if key not in IGNORED_KEYS))
    varied = [key for key in keys if len({run.settings.get(key) for run in done}) > 1]
    chosen = {key.removesuffix(f".{TARGET}") for key in varied if key.endswith(f".{TARGET}")}

    def owned(key: str, run: Run) -> bool:
        if all(key in other.settings for other in done):
            return True
        parts = [f"{part}.{TARGET}" for part in chosen if key.startswith(f"{part}.")]
        alike = [one for one in done if all(one.settings.get(part) == run.settings.get(part) for part in parts)]
        return not parts or len({one.settings.get(key) for one in alike}) > 1

    rows = []
    for run in runs:
        if not run.metrics:
            rows.append(dict(run.settings))
            continue
        row = {key: run.settings[key] for key in varied if key in run.settings and owned(key, run)}
        names = {key: value.rpartition(".")[2] if TARGET in key else value for key, value in row.items()}
        rows.append({key.removesuffix(f".{TARGET}"): value for key, value in names.items()})
    return rows


@dataclass(frozen=True)
class Family:
    """Runs that differ in their seed or fold alone: how their accuracies spread, and the accuracy over all their clips
    with its interval. A clip counts once, however many runs answered it, with the share of them that was right. Where
    no groups are known, the folds are the groups if they follow a column (``dataset.fold_by``), or else each clip is
    its own.
    """

    runs: list[Run]
    varied: str  # "folds", "seeds", or both
    mean: float
    least: float
    most: float
    pooled: float
    pooled_interval: Interval
    clips: int
    groups: int


def group_families(runs: Sequence[Run]) -> Iterator[Family]:
    """The families of two runs at least."""
    kinds: dict[str, list[Run]] = {}
    split = common_split(runs)
    for run in runs:
        rest = {key: value for key, value in run.settings.items() if key not in (*REPEATED_KEYS, *IGNORED_KEYS)}
        if run.metrics:
            kinds.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
    for members in kinds.values():
        varied = [key for key in REPEATED_KEYS if len({run.settings.get(key) for run in members}) > 1]
        if varied:
            names = " and ".join({"seed": "seeds", "dataset.fold": "folds"}[key] for key in varied)
            yield make_family(members, names, split)


def make_family(members: list[Run], varied: str, split: str) -> Family:
    """One of them."""
    accuracies = [float(run.metrics[split]["accuracy"]) for run in members]
    apart = all(run.settings.get("dataset.fold_by", "null") != "null" for run in members) and "folds" in varied
    shares, groups = pool_clips(members, split, apart)
    pooled = sum(shares) / len(shares) if shares else 0.0
    mean = sum(accuracies) / len(accuracies)
    limits = interval(shares, groups)[0]
    count = len({group for group in groups if group}) + groups.count("")
    return Family(members, varied, mean, min(accuracies), max(accuracies), pooled, limits, len(shares), count)


def pool_clips(runs: Sequence[Run], split: str, apart: bool) -> tuple[list[float], list[str]]:
    """Of each clip that any of the runs answered, the share of them that was right, and its group; ``apart``: if no
    groups are known, the folds are.

    The parts of a recording have one name, and their order tells them apart; so it does for clips without a name, those
    of a fold.
    """
    known = any(group for run in runs for group, *_ in run.right.get(split, ()))
    tries: dict[tuple[str, str, int], list[bool]] = {}
    groups: dict[tuple[str, str, int], str] = {}
    for run in runs:
        fold, seen = f"fold {run.settings.get('dataset.fold')}", Counter[tuple[str, str]]()
        for group, name, hit in run.right.get(split, ()):
            clip = group, name or fold, seen[group, name]
            seen[group, name] += 1
            tries.setdefault(clip, []).append(hit)
            groups.setdefault(clip, group or (fold if apart and not known else ""))
    return [sum(hits) / len(hits) for hits in tries.values()], list(groups.values())
