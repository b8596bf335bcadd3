"""What an engine is: where the files of a job are classified."""

from collections.abc import Iterator

from pipeline.batch.batch import Work
from pipeline.batch.decoders import Asked
from pipeline.sinks.items import FileResult


class Engine:
    """Base of all engines. The results do not depend on which it is."""

    def prepare(self, pictures: bool) -> None:
        """Begin what takes long, while the program goes on; ``pictures``: what will be classified has some."""

    def threads(self) -> int:
        """How many threads compute, unless the user says: by the machine alone, as bits may depend on them."""
        raise NotImplementedError

    def results(self, work: Work, asked: Iterator[Asked]) -> Iterator[tuple[int, FileResult]]:
        """Yield the number and the result of each entry once, in any order, as soon as it is known."""
        raise NotImplementedError
