"""One training: the model and its optimizer, its progress, and its files."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.augmentations.augmentation import Augmentation
from pipeline.core.atomic import write_text
from pipeline.core.build import Config, build
from pipeline.core.errors import ConfigError
from pipeline.core.moved import with_new_names
from pipeline.core.settings import differences
from pipeline.layers.stage import State, tree
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features
from pipeline.model.file import DEFAULTS
from pipeline.training.checkpoint import FILE, generators, load, save, set_generators
from pipeline.training.devices import broadcast_weights, gather
from pipeline.training.progress import Progress, best
from pipeline.training.weight_average import WeightAverage

TRAINER_MAY_CHANGE = {  # between a training and its resumption
    "device", "workers", "threads", "timeout", "resume", "save_every", "patience", "epochs", "minutes",
}  # fmt: skip
MAY_CHANGE = {"name", "false_alarms", "events", "calibrate", "export", "streams"}


class Run:
    """A training's model, optimizer, average and progress. Only the first of several processes writes files."""

    def __init__(
        self,
        fabric: Fabric,
        model: Classifier,
        background: str | None,
        optimizer: Config,
        augment: Augmentation | None,
        decay: float,
        out: Path,
        settings: Mapping[str, Any],
        last: bool = False,
    ) -> None:
        """``decay`` of the average of the weights. ``last``: the last model is kept, not the best one."""
        self.fabric, self.model, self.out, self.settings = fabric, model, out, settings
        self.last = last
        self.features = Features(model, augment, int(settings.get("seed", 0)))
        self.background = model.labels.index(background) if background in model.labels else None
        groups = parameter_groups(model, optimizer)
        made: torch.optim.Optimizer = build(optimizer, torch.optim.Optimizer, at="optimizer", params=groups)
        self.rates: list[float] = [group["lr"] * group["share"] for group in made.param_groups]
        self.logits, self.optimizer = fabric.setup(Logits(model), made)
        broadcast_weights(fabric, model)
        self.average = WeightAverage(model, decay)
        self.progress = Progress()
        self.started = time.perf_counter()
        self.best = self.weights()
        self.data: dict[str, str] = {}  # what the splits contain
        self.carried: State | None = None  # in which the clips of the last batch ended

    @property
    def learns(self) -> bool:
        """Whether there is anything to train; else all was fitted before."""
        return self.model.parameter_count() > 0

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return self.progress.seconds + time.perf_counter() - self.started

    def set_rate(self, share: float) -> None:
        """Learning rates as a share of the greatest."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def weights(self) -> dict[str, Tensor]:
        """The model's numbers as they are now."""
        return {name: stored(tensor) for name, tensor in self.model.state_dict().items()}

    def finish_epoch(self, row: dict[str, Any]) -> None:
        """Note an epoch's figures, and keep the model, with its mean weights, if it is the best so far, or ``last``."""
        progress = self.progress
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, [0.0, 0.0, 0.0]
        progress.history.append(row)
        if self.last or best(progress.history, self.model.task.best) is row:
            progress.best_epoch = progress.epoch
            with self.average.applied():
                self.best = self.weights()
                self.save_model()
        if self.fabric.global_rank == 0:
            write_text(self.out / "history.jsonl", "".join(json.dumps(row) + "\n" for row in progress.history))
        self.save_checkpoint()

    def save_model(self) -> None:
        """Write model.safetensors."""
        if self.fabric.global_rank == 0:
            about = {"settings": self.settings, "history": self.progress.history}
            self.model.save(self.out / "model.safetensors", about)

    def save_checkpoint(self) -> None:
        """Write last.ckpt, with which training goes on from here to the bit. All processes have to call it."""
        own = {"generators": generators(), "carried": None if self.carried is None else tree(stored, self.carried)}
        processes = gather(self.fabric, own)
        if self.fabric.global_rank:
            return
        facts = vars(self.progress) | {"seconds": self.seconds}
        save(
            self.out / FILE,
            {
                "model": self.weights(),
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state(),
                "processes": processes,
                "progress": json.dumps(facts),
                "config": json.dumps([self.model.config, self.model.labels]),
                "settings": json.dumps(decisive(self.settings)),
                "data": json.dumps(self.data),
            },
        )

    def restore(self, path: Path) -> None:
        """Go on where a run's last.ckpt left it. ConfigError if it is missing, broken or of another training."""
        state = load(path)
        there = with_new_names(dict(zip(("model", "labels"), json.loads(state.get("config", "[]")), strict=False)))
        here = json.loads(json.dumps({"model": self.model.config, "labels": self.model.labels}))
        if other := differences(DEFAULTS | there.pop("model", {}), here.pop("model")) or differences(there, here):
            raise ConfigError(f"trainer.resume: {path} was begun with another model: {other}; resume as it was begun")
        settings = DEFAULTS | with_new_names(json.loads(state.get("settings", "{}")))
        if other := differences(settings, DEFAULTS | json.loads(json.dumps(decisive(self.settings)))):
            raise ConfigError(f"trainer.resume: {path} was begun with other settings: {other}; resume as it was begun")
        if other := differences(json.loads(state.get("data", "{}")), self.data):
            hint = "bring back the dataset as it was, or begin anew"
            raise ConfigError(f"trainer.resume: the clips are not those with which {path} was begun: {other}; {hint}")
        if (count := len(state["processes"])) != self.fabric.world_size:
            raise ConfigError(f"trainer.resume: {path} is of {count} processes, not {self.fabric.world_size}")
        vars(self.progress).update(json.loads(state["progress"]))
        self.best = state["best"]
        self.model.load_state_dict(self.best)
        if self.progress.best_epoch:
            self.save_model()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.restore(state["average"])
        own = state["processes"][self.fabric.global_rank]
        if own["carried"] is not None:
            self.carried = tree(lambda tensor: tensor.to(self.model.anchor.device), from_lists(own["carried"]))
        set_generators(own["generators"])


class Logits(nn.Module):
    """What is called in training: ``Classifier.logits``."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Features and the state in which the encoder begins."""
        return self.model.logits(x, state)


def stored(tensor: Tensor) -> Tensor:
    """As it is kept in a file."""
    return tensor.detach().cpu().clone()


def from_lists(state: Any) -> State:
    """A state as a file has it; the first versions kept lists."""
    return state if isinstance(state, Tensor) else tuple(from_lists(part) for part in state)


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a training results in."""
    found = {key: value for key, value in settings.items() if key not in MAY_CHANGE}
    without = TRAINER_MAY_CHANGE if found.get("dataset", {}).get("negatives") else TRAINER_MAY_CHANGE | {"mine"}
    trainer = {key: value for key, value in found.get("trainer", {}).items() if key not in without}
    if not found.get("dataset", {}).get("copies", 1):  # which trainings did not always have
        found["dataset"] = {key: value for key, value in found["dataset"].items() if key != "copies"}
    return found | {"trainer": trainer}


def parameter_groups(model: Classifier, optimizer: Config) -> list[dict[str, Any]]:
    """Weight decay pulls on matrices only, not on biases, normalisation, peepholes and learned initial memories. What
    an extractor has borrowed learns at its own share of the learning rate, in groups behind the others.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = {n for n, p in trainable.items() if p.ndim > 1 and not n.endswith((".weight_ch", ".start"))}
    parts = {part: getattr(part, "learning_share", 1.0) for part in model.modules()}
    shares = {parameter: share for part, share in parts.items() if share != 1 for parameter in part.parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in trainable.items():
        groups.setdefault((shares.get(parameter, 1.0), name in matrices), []).append(parameter)
    decay = optimizer.get("weight_decay", 0.0)
    return [
        {"params": found, "weight_decay": decay if pulled else 0.0, "share": share}
        for (share, pulled), found in groups.items()
    ]
