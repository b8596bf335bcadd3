"""This machine: processes decode, this one computes."""

from collections.abc import Iterator

from pipeline.batch.batch import Work, classify
from pipeline.batch.decoders import Asked
from pipeline.batch.engine import Engine
from pipeline.sinks.sink import Row


class Local(Engine):
    """The engine for one machine, and for each of many that have shards."""

    def rows(self, work: Work, asked: Iterator[Asked]) -> Iterator[tuple[int, Row]]:
        """As they are done."""
        return classify(work, asked)
