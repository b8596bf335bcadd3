"""What a stream or a file has given and is not computed yet."""

from collections import deque

from pipeline.media.input_spec import Arrays, InputSpec, concatenate


class Backlog:
    """Chunks as they came, in order: each is copied once, however many wait.

    Attributes:
        ticks: of all of them.
    """

    def __init__(self, spec: InputSpec) -> None:
        self.spec, self.ticks = spec, 0
        self.chunks = deque[Arrays]()

    def put(self, parts: Arrays) -> None:
        """Add a chunk at the end."""
        if ticks := self.spec.ticks(parts):
            self.chunks.append(parts)
            self.ticks += ticks

    def take(self, ticks: int) -> Arrays:
        """Remove the first ``ticks``, as one chunk. There must be as many."""
        self.ticks -= ticks
        found = list[Arrays]()
        while ticks > 0:
            parts = self.chunks.popleft()
            if self.spec.ticks(parts) > ticks:
                parts, rest = self.spec.cut(parts, ticks)
                self.chunks.appendleft(rest)
            found.append(parts)
            ticks -= self.spec.ticks(parts)
        return found[0] if len(found) == 1 else concatenate(found or [self.spec.empty()])

    def parts(self) -> Arrays:
        """All that waits, as one chunk."""
        return concatenate([*self.chunks] or [self.spec.empty()])
