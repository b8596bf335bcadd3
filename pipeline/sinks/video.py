"""What a camera or a file shows, with the model's answers burned in, as an mp4 file."""

import sys
from collections import deque
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal
from pipeline.media.video_writer import VideoWriter
from pipeline.sinks.items import Frame, StreamInfo, TimedGap
from pipeline.sinks.screen import Screen

PART_PICTURES = 30  # so many and those in the encoder are lost if the program is killed
WAITING_BYTES = 256 << 20  # of pictures that wait for their answers


class Video(Screen):
    """Each picture at its own time, beside the answer for that time; events are printed, too. There is no sound.

    A picture waits until its answer is known. All pictures have the size of the first one.
    """

    def __init__(self, path: str) -> None:
        """``path`` of the mp4 file."""
        self.path = Path(path).expanduser()
        if self.path.suffix.lower() != ".mp4":
            raise ConfigError(f"sink.video.path: got {path!r}; expected a name that ends in .mp4")
        self.outputs = (self.path,)
        self.waiting: deque[tuple[Frame, float | None]] = deque()
        self.bytes = 0
        self.writer: VideoWriter | None = None
        self.pictures_written, self.hurried = 0, False

    def start(self, stream: StreamInfo) -> None:
        """Leave a file that is there as it is until the first picture. OSError if it cannot be written."""
        Journal(str(self.path), None)
        super().start(stream)

    def show(self, frame: Frame) -> None:
        """Write all pictures whose answers are known."""
        self.waiting.append((frame, self.age))
        self.bytes += frame.image.nbytes
        while self.waiting and (self.step_at(self.waiting[0][0].seconds) < self.steps or self.bytes > WAITING_BYTES):
            if self.bytes > WAITING_BYTES and not self.hurried:
                self.hurried = True
                hint = "answers come late, pictures cannot wait; set a smaller block"
                print(f"warning: sink=video: {hint}", file=sys.stderr)
            self.write_oldest()

    def write_oldest(self) -> None:
        frame, age = self.waiting.popleft()
        self.bytes -= frame.image.nbytes
        self.writer = self.writer or VideoWriter(self.path, part=PART_PICTURES)
        self.pictures_written += self.writer.write(self.draw(frame.image, frame.seconds, age), frame.seconds)

    def show_gap(self, gap: TimedGap) -> None:
        """The last picture, darkened, stands until the next one comes."""
        self.drain()
        if self.last is not None and self.writer:
            self.writer.write(self.draw(self.last, gap.start, notice=gap.why), gap.start)

    def drain(self) -> None:
        """Nothing more will be known: write what waits."""
        while self.waiting:
            self.write_oldest()

    def close(self) -> None:
        """Write what waits, and end the file; without pictures, none is written."""
        if self.stream is None:
            return
        try:
            self.drain()
        finally:
            if self.writer:
                self.writer.close()
        super().close()
        if self.pictures_written:
            print(f"{self.pictures_written} pictures in {self.path}", flush=True)
        else:
            print(f"warning: there were no pictures; {self.path} is not written", file=sys.stderr)
