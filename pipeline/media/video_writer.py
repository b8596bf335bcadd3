"""Pictures to an mp4 file (H.264), each at its own time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.media.part import PathLike
from pipeline.media.picture import Image, Images

TICKS = 90_000  # of the file's clock, a second
QUALITY = {"crf": "18", "preset": "veryfast"}
LASTING = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"}  # in parts that stand on their own
BT601, LIMITED = 6, 1  # told to players, which would take large pictures for BT.709


class VideoWriter:
    """Pictures ``(H, W, 3)`` RGB uint8, one after another; all get the size of the first, in even numbers."""

    def __init__(self, path: PathLike, rate: int = 30, part: int | None = None) -> None:
        """``rate``: a hint of pictures a second for players. ``part``: pictures after which what is written so far
        can be played, even if the program is killed (None: only once it is closed). OSError if the file cannot be
        written.
        """
        file = Path(path).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        open(file, "wb").close()  # PyAV would only try with the first picture
        # without "file:", what stands before a colon in the name would be taken for a protocol
        self.container = av.open(f"file:{file}", "w", format="mp4", options=LASTING if part else {})
        options = QUALITY | ({"g": str(part)} if part else {})
        self.stream = self.container.add_stream("libx264", rate=rate, options=options)
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.colorspace, self.stream.codec_context.color_range = BT601, LIMITED
        self.stream.codec_context.time_base = self.stream.time_base = Fraction(1, TICKS)
        self.last = -1

    def write(self, image: Image, seconds: float) -> bool:
        """A picture that is seen from ``seconds`` on; times must rise, one that does not is left out. Whether it was
        written.
        """
        time = round(seconds * TICKS)
        if time <= self.last:
            return False
        if self.last < 0:
            self.stream.height, self.stream.width = (size + size % 2 for size in image.shape[:2])
        self.last = time
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(self.stream.width, self.stream.height, "yuv420p", dst_colorspace="ITU601")
        frame.pts, frame.time_base = time, Fraction(1, TICKS)
        self.container.mux(self.stream.encode(frame))
        return True

    def close(self) -> None:
        """Write what the encoder still holds, and end the file."""
        try:
            if self.last >= 0:
                self.container.mux(self.stream.encode(None))
        finally:
            self.container.close()


def write_video(path: PathLike, images: Images, rate: int) -> None:
    """All pictures ``(T, H, W, 3)`` at ``rate`` a second."""
    writer = VideoWriter(path, rate)
    for number, image in enumerate(images):
        writer.write(image, number / rate)
    writer.close()
