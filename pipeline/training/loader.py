"""Batches of a split, step by step: in an order that is drawn anew for each epoch, and can be entered at any step.

A worker process may die or hang: new workers then load its batch again, so that the answer is the same. If that fails,
too, training stops with a clear error.
"""

import hashlib
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.errors import ConfigError, MediaError, UserError
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch, Sample, Split, collate
from pipeline.tasks.losses import class_weights

Balance: TypeAlias = Literal["none", "weights", "sampling"]
Step: TypeAlias = list[list[int]]  # the numbers of the clips of each part of a step
ATTEMPTS = 2  # to load a batch


class SkipUnreadable(Dataset[Sample | None]):
    """A split whose unreadable clips become None, with a warning. Any other error is one of the dataset's code."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return self.split[index]
        except (MediaError, OSError) as error:
            names = getattr(self.split, "names", [])
            name = names[index] if names else f"clip {index}"
            warnings.warn(f"skipped {name}: {type(error).__name__}: {error}", stacklevel=2)
            return None


class Loader:
    """Loads batches in ``workers`` processes (0: in this one), which may take ``timeout`` seconds for each clip."""

    def __init__(self, spec: InputSpec, workers: int = 0, timeout: float = 10.0) -> None:
        """``spec``: how a model takes its clips."""
        self.spec, self.workers, self.timeout = spec, workers, timeout

    def load_steps(self, split: Split, steps: Sequence[Step]) -> Iterator[list[Batch | None]]:
        """The parts of each step; None for one of which nothing could be read."""
        batches = self.load(split, [part for step in steps for part in step])
        for step in steps:
            yield list(islice(batches, len(step)))

    def load(self, split: Split, parts: Sequence[list[int]]) -> Iterator[Batch | None]:
        """A batch for each list of clip numbers. UserError if workers die or hang again and again."""
        workers = min(self.workers, max(0, len(parts) - 1))
        done = failures = 0
        while done < len(parts):
            rest = parts[done:]
            limit = self.timeout * max(map(len, rest)) if workers else 0
            loader: DataLoader[Any] = DataLoader(
                SkipUnreadable(split),
                batch_sampler=rest,
                collate_fn=partial(collate, spec=self.spec),
                num_workers=workers,
                timeout=limit,
                generator=torch.Generator().manual_seed(0),  # nothing in a clip depends on it
            )
            with own_signals():
                batches = iter(loader)
            while done < len(parts):
                try:
                    batch = next(batches)
                except RuntimeError as error:
                    if not workers or str(error).startswith("Caught "):  # by the dataset, in a worker
                        raise
                    failures += 1
                    for process in getattr(batches, "_workers", ()):  # torch has no public name for them
                        process.kill()  # a stopped one does not react to anything else
                    self.warn_or_raise(str(error).splitlines()[0], failures, limit)
                    del batches
                    break
                done, failures = done + 1, 0
                yield batch

    def warn_or_raise(self, reason: str, failures: int, limit: float) -> None:
        """Warn that workers have failed; UserError at the last attempt."""
        if failures >= ATTEMPTS:
            raise UserError(
                f"processes that load data fail again and again ({reason}); expected a batch within {limit:g} s. Set "
                "trainer.workers=0 to see where it fails, or trainer.timeout to grant a clip more time"
            ) from None
        warnings.warn(f"a process that loads data has failed, and others take its place: {reason}", stacklevel=3)


@contextmanager
def own_signals() -> Iterator[None]:
    """The program keeps its handler of SIGCHLD, so that the death of a worker is found when its batch is asked for.

    torch's handler would raise an error wherever the program is at that moment, such as in the middle of a step.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def draw_order(split: Split, seed: int, balance: Balance, labels: int) -> list[int]:
    """The order of an epoch; with ``sampling``, classes are drawn equally often, clips of them with replacement. A clip
    of several is drawn as often as one of the rarest of them.
    """
    generator = torch.Generator().manual_seed(seed)
    if balance != "sampling":
        return torch.randperm(len(split), generator=generator).tolist()
    known = [row or (labels,) for row in known_labels(split)]  # nothing is one more class
    each = class_weights([label for row in known for label in row], labels + 1)
    weights = torch.stack([each[list(row)].max() for row in known])
    return torch.multinomial(weights.double(), len(split), True, generator=generator).tolist()


def known_labels(split: Split) -> list[tuple[int, ...]]:
    """The labels of each clip. ConfigError if a split does not know them before it makes the clips."""
    found: Sequence[int | tuple[int, ...]] | None = getattr(split, "classes", None)
    if found is None:
        raise ConfigError("trainer.balance: this dataset does not tell its classes in advance; set it to none")
    return [(one,) if isinstance(one, int) else tuple(one) for one in found]


def plan_steps(order: Sequence[int], batch: int, parts: int = 1, rank: int = 0, world: int = 1) -> list[Step]:
    """Which clips make up each step: ``batch`` of the order, of which one of ``world`` processes takes every
    ``world``-th, in so many ``parts``. At the end, some may be empty.
    """
    size = math.ceil(batch / (world * parts))
    steps = []
    for start in range(0, len(order), batch):
        mine = list(order[start : start + batch])[rank::world]
        steps.append([mine[part * size : (part + 1) * size] for part in range(parts)])
    return steps


def describe_clips(split: Split) -> str:
    """Which clips a split has, as a short text: how many, and a digest of their names if they have any."""
    names = "\n".join(getattr(split, "names", []))
    return f"{len(split)} clips ({hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:12]})"


def loss_weights(split: Split, balance: Balance, labels: int) -> Tensor | None:
    """The weights of the classes in the loss; None: all are the same. ConfigError if the classes are not known."""
    if balance == "none":
        return None
    found = class_weights([label for row in known_labels(split) for label in row], labels)
    return found if balance == "weights" else None
