"""What a training leaves about its model: metrics.json, answers.jsonl and report.html."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.core.atomic import write_text
from pipeline.measures.cost import measure_cost, measure_step
from pipeline.media.sample import Split
from pipeline.model.classifier import Classifier
from pipeline.report.training import render_training
from pipeline.tasks.predictions import Predictions


def write_results(
    model: Classifier, found: Mapping[str, Predictions], more: Mapping[str, Any], history: Sequence[Mapping[str, Any]],
    out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Measure and write, each file whole or not at all; what metrics.json holds. OSError if a file cannot be written.

    ``found``: predictions by split. ``more``: what else is known of the run, at least its ``settings``, ``epochs``,
    ``best_epoch`` and ``seconds``; ``clips`` and ``groups`` as ``count_clips`` counts them, the ``overrides`` of the
    command line, and the ``step`` of what streams compute, where that is not torch.
    """
    file, task = out / "model.safetensors", model.task
    metrics = measure_cost(model, file.stat().st_size if file.is_file() else None) | dict(more)
    if "step" not in metrics:
        metrics["step"] = measure_step(model.for_streaming().eval())
    metrics |= {split: task.measure(one) for split, one in found.items()}
    metrics["machine"] = describe_machine(str(model.anchor.device))
    lines = (row for split, one in found.items() for row in task.to_json_lines(split, one))
    write_text(out / "answers.jsonl", "".join(lines))
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_text(out / "report.html", render_training(metrics, history, found, model.spec, out))
    return metrics


def count_clips(splits: Mapping[str, Split]) -> dict[str, dict[str, int]]:
    """``clips``: how many each split has (in an epoch, if it makes them); ``groups``: of how many, if all have one;
    ``unreadable``: how many it has left out.
    """
    clips = {name: len(split) for name, split in splits.items()}
    groups = {name: len(own) for name, split in splits.items() if "" not in (own := set(getattr(split, "groups", [])))}
    lost = {name: int(getattr(split, "skipped", 0)) for name, split in splits.items()}
    found = {"groups": groups, "unreadable": lost}
    return {"clips": clips} | {key: {name: count for name, count in row.items() if count} for key, row in found.items()}


def describe_machine(device: str) -> dict[str, str]:
    """Processor, cores, threads, ``device`` and versions, as words."""
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": f"{os.cpu_count()}, of which {torch.get_num_threads()} computed",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    return found | {"python": platform.python_version(), "torch": torch.__version__}


def processor_name() -> str:
    """The name of the processor, where the system knows it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
