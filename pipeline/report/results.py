"""What a training leaves about its model: metrics.json, answers.jsonl and report.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pipeline.report.page as page
from pipeline.measures.cost import cost
from pipeline.measures.evaluation import Answers, figures, rows
from pipeline.media.sample import Split
from pipeline.model.classifier import Classifier
from pipeline.report.machine import machine
from pipeline.report.training import written


def results(
    model: Classifier, found: Mapping[str, Answers], more: Mapping[str, Any], history: Sequence[Mapping[str, Any]],
    out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Measure and write, each file whole or not at all; what metrics.json holds. OSError if a file cannot be written.

    ``found``: answers by split. ``more``: what else is known of the run, its ``settings``, ``epochs``, ``best_epoch``
    and ``seconds`` at least; ``clips`` and ``groups`` as ``sizes`` counts them, and the command line's ``overrides``.
    """
    file = out / "model.safetensors"
    metrics = cost(model, file.stat().st_size if file.is_file() else None) | dict(more)
    metrics |= {split: figures(answers) for split, answers in found.items()}
    metrics["machine"] = machine(str(model.anchor.device))
    page.save(out / "answers.jsonl", "".join(row for split, answers in found.items() for row in rows(split, answers)))
    page.save(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    page.save(out / "report.html", written(metrics, history, found, model.spec, out))
    return metrics


def sizes(splits: Mapping[str, Split]) -> dict[str, dict[str, int]]:
    """``clips``: how many each split has (in an epoch, if it makes them); ``groups``: of how many, if all have one;
    ``unreadable``: how many it has left out.
    """
    clips = {name: len(split) for name, split in splits.items()}
    groups = {name: len(own) for name, split in splits.items() if "" not in (own := set(getattr(split, "groups", [])))}
    lost = {name: int(getattr(split, "skipped", 0)) for name, split in splits.items()}
    found = {"groups": groups, "unreadable": lost}
    return {"clips": clips} | {key: {name: count for name, count in row.items() if count} for key, row in found.items()}
