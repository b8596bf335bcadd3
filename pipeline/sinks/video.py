"""What a camera or a file shows, with the model's answers burned in, as an mp4 file."""

import sys
from collections import deque
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.media.picture import Image
from pipeline.media.video_writer import VideoWriter
from pipeline.sinks.overlay import Plan, draw, plan
from pipeline.sinks.screen import Screen

PART = 30  # pictures; so many and those in the encoder are lost if the program is killed
WAITING = 256 << 20  # bytes of pictures that wait for their answers


class Video(Screen):
    """Each picture at its own time, beside the answer for that time; events are printed, too. There is no sound.

    A picture waits until its answer is known. All pictures have the size of the first one.
    """

    def __init__(self, path: str | None = None) -> None:
        """``path`` of the mp4 file."""
        super().__init__()
        if path is None:
            raise ConfigError("sink.video.path: is not set; give the video to write: sink.video.path=out.mp4")
        self.path = Path(path).expanduser()
        if self.path.suffix.lower() != ".mp4":
            raise ConfigError(f"sink.video.path: got {path!r}; expected a name that ends in .mp4")
        self.outputs = (self.path,)
        self.waiting: deque[tuple[float, Image, float | None]] = deque()
        self.bytes = 0
        self.writer: VideoWriter | None = None
        self.place: Plan | None = None
        self.last: Image | None = None
        self.count, self.hurried, self.started = 0, False, False

    def start(self, name: str, labels: list[str], rate: int, hop: int) -> None:
        """Leave a file that is there as it is until the first picture. OSError if it cannot be written."""
        there = self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        open(self.path, "ab").close()
        if not there:
            self.path.unlink()
        super().start(name, labels, rate, hop)
        self.started = True

    def picture(self, seconds: float, image: Image) -> None:
        """Write all pictures whose answers are known."""
        self.waiting.append((seconds, image, self.age))
        self.bytes += image.nbytes
        while self.waiting and (self.step_at(self.waiting[0][0]) < self.known or self.bytes > WAITING):
            if self.bytes > WAITING and not self.hurried:
                self.hurried = True
                print(
                    "warning: sink=video: answers come late, pictures cannot wait; set a smaller block", file=sys.stderr
                )
            self.write()

    def write(self) -> None:
        """Write the oldest picture."""
        seconds, image, age = self.waiting.popleft()
        self.bytes -= image.nbytes
        self.put(seconds, image, age)

    def put(self, seconds: float, image: Image, age: float | None = None, notice: str = "") -> None:
        """A picture, with what is known of its time."""
        self.writer = self.writer or VideoWriter(self.path, part=PART)
        self.place = self.place or plan(*image.shape[:2])
        self.last = image
        written = self.writer.write(draw(image, self.scene(seconds, age, notice), self.place), seconds)
        self.count += written and not notice

    def missing(self, seconds: float, why: str) -> None:
        """The last picture, darkened, stands until the next one comes."""
        self.drain()
        if self.last is not None:
            self.put(seconds, self.last, notice=why)

    def drain(self) -> None:
        """Nothing more will be known: write what waits."""
        while self.waiting:
            self.write()

    def close(self) -> None:
        """Write what waits, and end the file; without pictures, none is written."""
        if not self.started:
            return
        try:
            self.drain()
        finally:
            if self.writer:
                self.writer.close()
        super().close()
        if self.count:
            print(f"{self.count} pictures in {self.path}", flush=True)
        else:
            print(f"warning: there were no pictures; {self.path} is not written", file=sys.stderr)
