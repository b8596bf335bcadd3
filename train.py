"""Train a classifier: `python train.py --help`."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from conf.launch import OK, launch


def train(
    *,
    name: str,
    seed: NonNegativeInt,
    dataset: dict[str, Any],
    extractor: dict[str, Any],
    encoder: dict[str, Any],
    cell: dict[str, Any],
    head: dict[str, Any],
    smoothing: dict[str, Any],
    decoder: dict[str, Any],
    augment: dict[str, Any] | None,
    optimizer: dict[str, Any],
    trainer: dict[str, Any],
    false_alarms: NonNegativeFloat | None,
    events: Literal["f1"] | None,
    out: Path = Path(),
) -> int:
    """Data and model, fit, test, report. The signature is the schema of conf/train.yaml."""
    settings = {key: value for key, value in locals().items() if key != "out"}

    from pipeline.augmentation import Augmentation
    from pipeline.build import build
    from pipeline.errors import ConfigError
    from pipeline.model import PARTS, Classifier, load
    from pipeline.report import summary
    from pipeline.thresholds import tune
    from pipeline.trainer import Trainer

    if false_alarms is not None and (events or decoder.get("threshold") is not None):
        other = "as events does" if events else "which is set"
        raise ConfigError(f"false_alarms: chooses decoder.threshold, {other}, too; set only one of them")
    started = time.perf_counter()
    coach = build(trainer, Trainer, at="trainer")
    change = build(augment, Augmentation, at="augment") if augment else None
    data: Any = build(dataset, at="dataset")
    coach.seed(seed)
    model = Classifier({part: settings[part] for part in PARTS}, data.labels)
    if change:
        change.know(model.labels, model.extractor)  # what does not suit shows now, not after hours of reading
    if (out / "model.safetensors").is_file() and coach.resume is None:
        print(f"warning: {out} holds a model, which this training replaces", file=sys.stderr)
    splits = {split: data.split(split, model.intake) for split in ("train", "val", "test")}
    progress = coach.fit(model, data.background, splits["train"], splits["val"], optimizer, change, out, settings)

    best = load(out / "model.safetensors", device=str(coach.fabric.device))
    metrics = {split: coach.evaluate(best, splits[split]) for split in ("val", "test") if len(splits[split])}
    tuned = {}
    if false_alarms is not None or events:
        tuned = {"events": tune(best, {split: splits[split] for split in metrics}, false_alarms)}
        best.save(out / "model.safetensors", {"settings": settings, "history": progress.history})
    figures = {
        "parameters": best.parameter_count(),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (out / "metrics.json").write_text(json.dumps(figures | metrics | tuned, indent=2) + "\n")
    summary(figures, metrics | tuned, out, every=len(best.decoder().audible) == len(best.labels))
    return OK


if __name__ == "__main__":
    launch(train, "train")
