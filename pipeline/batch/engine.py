"""What an engine is: where the files of a job are classified."""

from collections.abc import Iterator

from pipeline.batch.batch import Work
from pipeline.batch.decoders import Asked
from pipeline.sinks.sink import Row


class Engine:
    """Base of all engines. The rows do not depend on which it is."""

    def rows(self, work: Work, asked: Iterator[Asked]) -> Iterator[tuple[int, Row]]:
        """The row of each numbered entry with its number, in any order, each once, as soon as it is known."""
        raise NotImplementedError
