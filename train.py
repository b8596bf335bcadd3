"""Train a classifier: `python train.py --help`."""

if __name__ == "__main__":
    from pipeline.core.environment import check
    from pipeline.core.interrupt import hold

    check()
    hold()  # before the imports that take a second

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from conf.launch import OK, Job, launch, read_overrides

WORST_CLIPS = 10  # that the report shows


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
    task: dict[str, Any],
    gate: dict[str, Any],
    augment: dict[str, Any] | None,
    optimizer: dict[str, Any],
    trainer: dict[str, Any],
    false_alarms: NonNegativeFloat | None,
    events: Literal["f1"] | None,
    calibrate: bool,
    export: bool,
    streams: str | list[str] | None,
    out: Path = Path(),
    report: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> int:
    """Data and model, fit, test, report. The signature is the schema of conf/train.yaml.

    With ``report`` (see ``fit``) this is a trial of a sweep: it is not tested, as its validation clips alone judge it.
    """
    settings = {key: value for key, value in locals().items() if key not in ("out", "report")}
    from pipeline.augmentations.augmentation import Augmentation
    from pipeline.core.build import build, find, schema
    from pipeline.measures.detection import check_recordings, find_recordings
    from pipeline.model.classifier import Classifier
    from pipeline.model.file import PARTS
    from pipeline.tasks.task import Task
    from pipeline.training.trainer import Trainer

    aim = build(task, Task, at="task")
    aim.check(settings)
    started = time.perf_counter()
    heard = find_recordings(streams) if streams is not None else []
    coach = build(trainer, Trainer, at="trainer")
    change = build(augment, Augmentation, at="augment") if augment else None
    lone = {"lone": True} if aim.alone and "lone" in schema(find(dataset["_target_"], object, "dataset")) else {}
    data: Any = build(dataset, at="dataset", **lone)
    settings["task"] = aim.recorded(task, data.labels, data.background)
    coach.seed(seed)
    model = Classifier({part: settings[part] for part in PARTS}, aim.columns(data.labels, data.background))
    if change:
        change.setup(model.labels, model.extractor)  # refuses what does not suit before the data are read
    coach.begin(model)
    check_recordings(heard, model)
    if (out / "model.safetensors").is_file() and coach.resume is None and coach.leads:
        print(f"warning: {out} holds a model, which this training replaces", file=sys.stderr)
    splits = coach.splits(data, model)
    fitted = coach.fit(model, data.background, splits["train"], splits["val"], optimizer, change, out, settings, report)
    if not coach.leads:
        return OK
    return test_and_report(coach, splits, fitted, settings, heard, started, out, trial=report is not None)


def test_and_report(
    coach: Any, splits: Any, progress: Any, settings: Any, heard: Any, started: float, out: Path, trial: bool
) -> int:
    """Test the best model, also on ``heard`` recordings, and write the report. A ``trial`` is only validated."""
    from pipeline.measures.detection import evaluate_recordings
    from pipeline.measures.thresholds import tune_decoder
    from pipeline.model.classifier import load
    from pipeline.report.results import count_clips, write_results
    from pipeline.report.summary import print_summary

    best = load(out / "model.safetensors", device=str(coach.fabric.device))
    rescaled = (settings["calibrate"] or best.task.rescaled) and not trial
    if rescaled:
        best.head.scale(*best.task.calibrate(coach.predict(best, splits["val"])))
    names = [split for split in (("val",) if trial else ("val", "test")) if len(splits[split])]
    found = {split: coach.predict(best, splits[split], worst=WORST_CLIPS) for split in names}
    more = {"epochs": progress.epoch, "best_epoch": progress.best_epoch, **count_clips(splits), "settings": settings}
    if (overrides := read_overrides(out)) is not None:
        more["overrides"] = overrides
    wish, f1, silence = settings["false_alarms"], bool(settings["events"]), hasattr(splits["val"], "held_out")
    if not trial and (wish is not None or f1 or silence):
        more["events"] = tune_decoder(best, {split: splits[split] for split in found}, wish, f1)
    if "events" in more or rescaled:
        best.save(out / "model.safetensors", {"settings": settings, "history": progress.history})
    if settings["export"] and not trial:
        more |= write_graphs(best, out)
    if heard and not trial:
        more["streams"] = evaluate_recordings(best, heard)
    more["seconds"] = round(progress.seconds + time.perf_counter() - started, 1)
    metrics = write_results(best, found, more, progress.history, out)
    print_summary(metrics, out, every=best.task.link == "softmax" and len(best.decoder().audible) == len(best.labels))
    return OK


def write_graphs(model: Any, out: Path) -> dict[str, Any]:
    """Export the model beside its weights, for ``infer.py``, and measure its step; a model that cannot be exported is
    told. Figures of it.
    """
    from pipeline.core.errors import UserError
    from pipeline.exporting.export import export
    from pipeline.measures.cost import measure_step
    from pipeline.model.onnx_model import OnnxModel

    started = time.perf_counter()
    try:
        written = export(model, out)
    except UserError as error:
        print(f"note: no graph beside the weights, so infer.py will compute with torch: {error}", file=sys.stderr)
        return {"export": {"error": str(error)}}
    size = {path.name: path.stat().st_size for path in written}
    figures = {"bytes": size, "seconds": round(time.perf_counter() - started, 1)}
    return {"export": figures, "step": measure_step(OnnxModel(written[0]))}


def compare(jobs: list[Job]) -> None:
    """The runs of --multirun side by side, and as a page beside them."""
    from pipeline.report.comparison import compare as compare_runs

    done = [job.folder for job in jobs if job.code == OK]
    failed = {job.folder: job.overrides for job in jobs if job.code != OK}
    compare_runs(done, jobs[0].folder.parent / "comparison.html", failed)


if __name__ == "__main__":
    launch(train, "train", compare)  # fish completes what has @hydra.main in its text
