"""This machine: processes decode, this one computes."""

import os
from collections.abc import Iterator

from pipeline.batch.batch import Work, classify
from pipeline.batch.decoders import Asked
from pipeline.batch.engine import Engine
from pipeline.batch.files import DEFAULT_WORKERS
from pipeline.batch.forkserver import start_server
from pipeline.sinks.items import FileResult


class Local(Engine):
    """The engine for one machine, and for each of many that have shards."""

    def prepare(self, pictures: bool) -> None:
        """Start the process that those that decode are copies of."""
        start_server(pictures)

    def threads(self) -> int:
        """One for each core that as many processes as decode by default leave."""
        return max(1, (os.cpu_count() or 1) - DEFAULT_WORKERS)

    def results(self, work: Work, asked: Iterator[Asked]) -> Iterator[tuple[int, FileResult]]:
        return classify(work, asked)
