"""Batches of a split, step by step: in an order that is drawn anew for each epoch, and can be entered at any step.

Processes that load may die, hang or fail: what they were at is loaded once more by others, so that the answer is the
same, and training stops with a clear error if that fails, too.
"""

import hashlib
import math
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.errors import ConfigError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch, Sample, Split, collate
from pipeline.training.losses import balanced

Balance: TypeAlias = Literal["none", "weights", "sampling"]
Step: TypeAlias = list[list[int]]  # the numbers of the clips of each part of a step
TRIES = 2  # times that a batch is asked for


class Careful(Dataset[Sample | None]):
    """A split of which a clip that cannot be had is left out, whatever is wrong with it."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return self.split[index]
        except Exception as error:  # one clip is not the end of a training
            names = getattr(self.split, "names", [])
            which = names[index] if names else f"clip {index}"
            warnings.warn(f"skipped {which}: {type(error).__name__}: {error}", stacklevel=2)
            return None


class Feed:
    """Loads batches by ``workers`` processes (0: by this one), which have ``timeout`` seconds for each."""

    def __init__(self, spec: InputSpec, workers: int = 0, timeout: float = 25.0) -> None:
        """``spec``: how a model takes its clips."""
        self.spec, self.workers, self.timeout = spec, workers, timeout

    def steps(self, split: Split, plan: Sequence[Step]) -> Iterator[list[Batch | None]]:
        """The parts of each step of a plan; None for one of which nothing could be read."""
        coming = self.batches(split, [part for step in plan for part in step])
        for step in plan:
            yield list(islice(coming, len(step)))

    def batches(self, split: Split, parts: Sequence[list[int]]) -> Iterator[Batch | None]:
        """A batch for each list of clip numbers. UserError if those who load them die or hang again and again."""
        workers = min(self.workers, max(0, len(parts) - 1))
        done = failures = 0
        while done < len(parts):
            loader: DataLoader[Any] = DataLoader(
                Careful(split),
                batch_sampler=parts[done:],
                collate_fn=partial(collate, spec=self.spec),
                num_workers=workers,
                timeout=self.timeout if workers else 0,
                generator=torch.Generator().manual_seed(0),  # nothing in a clip depends on it
            )
            loading = iter(loader)
            quiet()
            while done < len(parts):
                try:
                    batch = next(loading)
                except RuntimeError as error:
                    failures += 1
                    self.bury(error, failures)
                    del loading
                    break
                done, failures = done + 1, 0
                yield batch

    def bury(self, error: RuntimeError, failures: int) -> None:
        """End the processes that load, of which one has failed. UserError if it is not for the first time."""
        if not self.workers:
            raise error
        for process in multiprocessing.active_children():
            process.kill()  # a stopped one does not hear anything else
        reason = str(error).splitlines()[0]
        if failures >= TRIES:
            raise UserError(
                f"processes that load data fail again and again ({reason}); expected a batch within {self.timeout:g} "
                "s. trainer.workers=0 loads in this process and shows where it fails; trainer.timeout grants more time"
            ) from None
        warnings.warn(f"a process that loads data has failed, and others take its place: {reason}", stacklevel=2)


def quiet() -> None:
    """Let the death of a process that loads be found when its batch is asked for.

    torch would raise an error wherever the program is at that moment, such as in the middle of a step.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def shuffled(split: Split, seed: int, balance: Balance, labels: int) -> list[int]:
    """The order of an epoch; with ``sampling``, classes are drawn equally often, clips of them with replacement."""
    generator = torch.Generator().manual_seed(seed)
    if balance != "sampling":
        return torch.randperm(len(split), generator=generator).tolist()
    weights = balanced(classes(split), labels)[torch.as_tensor(classes(split))]
    return torch.multinomial(weights.double(), len(split), True, generator=generator).tolist()


def classes(split: Split) -> Sequence[int]:
    """The class of each clip. ConfigError if a split does not know them before it makes the clips."""
    found: Sequence[int] | None = getattr(split, "classes", None)
    if found is None:
        raise ConfigError(
            "trainer.balance: this dataset does not tell its classes in advance; set trainer.balance=none"
        )
    return found


def plan(order: Sequence[int], batch: int, parts: int = 1, rank: int = 0, world: int = 1) -> list[Step]:
    """Which clips make up each step: ``batch`` of the order, of which one of ``world`` processes takes every
    ``world``-th, in so many ``parts``. At the end, some may be empty.
    """
    size = math.ceil(batch / (world * parts))
    steps = []
    for start in range(0, len(order), batch):
        mine = list(order[start : start + batch])[rank::world]
        steps.append([mine[part * size : (part + 1) * size] for part in range(parts)])
    return steps


def contents(split: Split) -> str:
    """Which clips a split has, as a short text: how many, and a digest of their names if they have any."""
    names = "\n".join(getattr(split, "names", []))
    return f"{len(split)} clips ({hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:12]})"


def weights_of(split: Split, balance: Balance, labels: int) -> Tensor | None:
    """The weights of the classes in the loss; None: all are the same. ConfigError if they are asked for in vain."""
    found = None if balance == "none" else balanced(classes(split), labels)
    return found if balance == "weights" else None
