"""A cluster: Ray Data hands files to actors on many machines, each of which does what this machine would do alone.

An actor gets some files at once and answers when it has all their rows: such a task is repeated as a whole if the actor
dies, and says the same again. Ray would repeat it for ever; so beginnings are counted, and a task that has begun too
often answers nothing. Its files then are tasks of their own, and the one that ends actors has its error.
"""

import json
import logging
import math
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import PositiveFloat, PositiveInt

from pipeline.batch.batch import Batch, Predictor, Work
from pipeline.batch.decoders import Asked
from pipeline.batch.engine import Engine
from pipeline.batch.listing import Entry
from pipeline.core.errors import ConfigError, MediaError, UserError
from pipeline.sinks.items import FileResult
from pipeline.streaming.interrupts import Interrupts

PACKAGE = Path(__file__).resolve().parent.parent
TASKS_PER_ACTOR = 500  # about, before all actors are made anew: so many files are listed in advance
MAX_ATTEMPTS = 3  # of a task
CONNECT_SECONDS = 10.0  # to wait for an answer at the address
Table: TypeAlias = Any  # of pyarrow, with the columns number and json


@dataclass(eq=False)
class Ray(Engine):
    """The engine for machines that see the same files under the same names and have the same packages.

    ``address`` of a cluster (None: one that lives on this machine as long as the job). Each of the ``actors`` has
    ``cpus`` cores for itself, decodes with as many processes, and gets ``batch`` files at once. ConfigError if Ray is
    not installed.
    """

    address: str | None = None
    actors: PositiveInt = 2
    cpus: PositiveFloat = 1.0
    batch: PositiveInt = 64

    def __post_init__(self) -> None:
        try:
            import pyarrow  # noqa: F401
            import ray.data
        except ImportError as error:
            raise ConfigError(f'engine=ray: pip install "ray[data]" pyarrow ({error})') from None
        self.ray: Any = ray
        self.kind = Actor

    def threads(self) -> int:
        """One for each core of an actor."""
        return max(1, int(self.cpus))

    def results(self, work: Work, asked: Iterator[Asked]) -> Iterator[tuple[int, FileResult]]:
        """As tasks are done. UserError if Ray gives up."""
        if work.model.engine["device"] != "cpu":
            raise ConfigError("device: engine=ray computes on CPUs; set device=cpu")
        Batch(work)  # says what is wrong with the model
        work = replace(work, workers=min(work.workers, max(1, int(self.cpus))))
        with self.connected():
            while left := dict(islice(asked, TASKS_PER_ACTOR * self.actors * self.batch)):
                for size in (self.batch, 1):
                    for number, result in self.answers(work, left, size):
                        if left.pop(number, None):
                            yield number, result
                for number, entry in left.items():
                    error = MediaError("crashed", f"{MAX_ATTEMPTS} actors died as they classified it")
                    yield number, work.failed(entry, error)

    def answers(self, work: Work, asked: Mapping[int, Entry], size: int) -> Iterator[tuple[int, FileResult]]:
        """The results of entries, ``size`` to a task; some may be missing, and some may come twice."""
        if not asked:
            return
        data, items = self.ray.data, list(asked.items())
        tasks = [table(dict(items[at : at + size])) for at in range(0, len(items), size)]
        attempts = self.ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
        found = data.from_arrow(tasks).map_batches(
            self.kind,
            fn_constructor_args=(work, torch.get_num_threads(), os.getcwd(), attempts),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=self.actors),
            num_cpus=self.cpus,
        )
        try:
            for done in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for number, row in items_of(done).items():
                    yield number, FileResult.of(row)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"engine=ray: {error}") from None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Start Ray and stop it at the end. If the program runs Ray already, use that and leave it running."""
        if self.ray.is_initialized():
            yield
            return
        silence(self.ray)
        try:
            with Interrupts() as interrupts:  # halfway, Ray leaves processes behind; and it takes SIGTERM for itself
                with no_stderr():
                    self.start()
                with interrupts.welcome():
                    self.check_size()
            yield
        finally:
            self.ray.shutdown()

    def start(self) -> None:
        """Connect, or start a cluster. ConfigError if there is none."""
        options: dict[str, Any] = {"runtime_env": {"py_modules": [str(PACKAGE)]}}
        if self.address is None:
            cores = max(os.cpu_count() or 1, math.ceil(self.cpus * self.actors))
            options = {"num_cpus": cores, "include_dashboard": False}
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": str(PACKAGE.parent)}}
        host, _, port = (self.address or "").removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdecimal():
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray itself would try for minutes
            self.ray.init(self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, ValueError, RuntimeError, OverflowError) as error:
            why = f"{error}; {error.__cause__}" if error.__cause__ else error
            raise ConfigError(f"engine.address: no cluster at {self.address or 'this machine'} ({why})") from None

    def check_size(self) -> None:
        """ConfigError if no machine is large enough for an actor, which would wait for ever."""
        most = max(node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"])
        if most < self.cpus:
            raise ConfigError(f"engine.cpus: an actor shall have {self.cpus:g}, but no machine has more than {most:g}")


class Actor:
    """What lives on a machine of the cluster, for many tasks."""

    def __init__(self, work: Work, threads: int, folder: str, attempts: Any) -> None:
        """``threads`` compute. ``folder``: where relative paths begin. ``attempts``: an actor of that class."""
        torch.set_num_threads(threads)
        with suppress(OSError):
            os.chdir(folder)
        self.predictor, self.attempts = Predictor(work), attempts

    def __call__(self, task: Table) -> Table:
        """The results of some entries in the order of their numbers, or none, if that was tried too often."""
        import ray

        entries = {number: Entry(*entry) for number, entry in items_of(task).items()}
        if ray.get(self.attempts.add.remote(next(iter(entries)))) > MAX_ATTEMPTS:
            return table({})
        return table({number: result.row() for number, result in sorted(self.results(entries).items())})

    def results(self, entries: Mapping[int, Entry]) -> dict[int, FileResult]:
        """The result of each of the numbered entries."""
        return dict(self.predictor.results(entries.items()))


class Attempts:
    """An actor that knows how often tasks have begun."""

    def __init__(self) -> None:
        self.counts = Counter[int]()

    def add(self, task: int) -> int:
        """Count a beginning of a task; how often it has begun."""
        self.counts[task] += 1
        return self.counts[task]


def table(items: Mapping[int, Any]) -> Table:
    """Numbered things as two columns. JSON, as names of files need not be UTF-8, and as no row is like another."""
    import pyarrow

    kinds = pyarrow.schema([("number", pyarrow.int64()), ("json", pyarrow.large_string())])
    return pyarrow.table([list(items), list(map(json.dumps, items.values()))], schema=kinds)


def items_of(found: Table) -> dict[int, Any]:
    """The inverse of ``table``."""
    return dict(zip(found["number"].to_pylist(), map(json.loads, found["json"].to_pylist()), strict=True))


def silence(ray: Any) -> None:
    """Let Ray keep its progress to itself: standard output is for answers, and there is a bar already."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    ray._private.worker._worker_logs_enabled = False  # puts errors on standard output


@contextmanager
def no_stderr() -> Iterator[None]:
    """Nothing goes to standard error meanwhile: Ray writes there, too, that it writes nothing."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
