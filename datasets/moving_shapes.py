"""Shapes that move: made on the fly, and no single picture tells the class.

A shape of any kind, colour and size slides over a textured ground with another shape that stands still. What counts is
its motion: direction and speed, or the order of two directions. Its place is uniform at every moment (what leaves on
one side enters on the other), so one picture holds no information at all; see the classes in ``LABELS``.

    python -m datasets.moving_shapes FOLDER     write a 30-s scene, the truth beside it, and a folder of clips
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.generated import Film, Motions, Rng, add_camera_noise, draw_colours, draw_ground, write_recordings
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Images, Picture
from pipeline.media.video_writer import write_video

Path2 = NDArray[Any]  # (T, 2) positions x, y in picture heights
BACKGROUND = "background"  # nothing moves
WAYS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SPEEDS = {"slow": (0.2, 0.35), "fast": (0.7, 1.0)}  # picture heights per second
TURNS = ("right_left", "left_right", "up_down", "down_up")
TURN = (0.25, 0.45)  # seconds until a motion turns back
LABELS = sorted([*(f"{way}_{speed}" for way in WAYS for speed in SPEEDS), *TURNS, BACKGROUND])


EDGES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    # how far |x|, |y| are from the edge of a shape of size 1 around 0; negative inside
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(x, y) - 0.85,
    "diamond": lambda x, y: (x + y - 1.1) / np.sqrt(2),
    "cross": lambda x, y: np.minimum(np.maximum(x, y / 3), np.maximum(y, x / 3)) - 0.35,
}


def velocities(rng: Rng, label: str, steps: int, rate: int) -> NDArray[Any]:
    """Velocity in each of ``steps`` pictures ``(steps, 2)``, in picture heights a second."""
    if label == BACKGROUND:
        return np.zeros((steps, 2))
    first, second = label.split("_")
    speed = rng.uniform(*SPEEDS[second if second in SPEEDS else str(rng.choice(list(SPEEDS)))])
    way = np.repeat([WAYS[first]], steps, axis=0) * speed
    if label in TURNS:
        way[round(rng.uniform(*TURN) * rate) :] *= -1
    return way


def paint(rng: Rng, path: Path2, picture: Picture) -> Images:
    """One shape along ``path`` past another that stands still: ``(T, H, W, 3)`` uint8."""
    height, width = picture.height, picture.width
    ground = draw_ground(rng, height, width)
    still, moving = draw_colours(rng, ground)
    sight = np.repeat(ground[None], len(path), axis=0)
    draw_shape(sight, np.repeat(rng.uniform(0, 1, (1, 2)) * (width / height, 1), len(path), axis=0), rng, still)
    draw_shape(sight, path, rng, moving)
    return add_camera_noise(rng, sight)


def draw_shape(sight: NDArray[Any], path: Path2, rng: Rng, colour: NDArray[Any]) -> None:
    """Draw a shape of a random kind and size at ``path`` with soft edges; it wraps around at the borders."""
    height, width = sight.shape[1:3]
    size, wide = rng.uniform(0.1, 0.18), width / height
    x = (np.arange(width) / height - path[:, 0, None] + wide / 2) % wide - wide / 2  # (T, W)
    y = (np.arange(height) / height - path[:, 1, None] + 0.5) % 1 - 0.5  # (T, H)
    edge = EDGES[str(rng.choice(list(EDGES)))](np.abs(x[:, None, :]) / size, np.abs(y[:, :, None]) / size)
    share = (0.5 - edge * size * height).clip(0, 1)[..., None].astype(np.float32)
    sight += share * (colour.astype(np.float32) - sight)


@dataclass(eq=False)
class MovingShapes(Motions):
    """One motion in each clip, or none: ``background``. What stands still before it stands where it begins."""

    title = "moving_shapes"

    def __post_init__(self) -> None:
        self.labels, self.background = LABELS, BACKGROUND

    def motion(self, rng: Rng, label: str, split: str, picture: Picture) -> Film:
        """A clip of ``label``; the splits differ by ``rng`` alone."""
        return compose(rng, [label], self.seconds, (0.0, self.gap), picture)


def compose(rng: Rng, labels: list[str], seconds: float, gap: tuple[float, float], picture: Picture) -> Film:
    """One motion after another, standing still between; the pictures and ``(start, end, label)`` in pictures."""
    rate, steps, spans = picture.rate, [np.zeros((1, 2))], list[tuple[int, int, str]]()
    for label in labels:
        steps.append(np.zeros((round(rng.uniform(*gap) * rate), 2)))
        start, count = sum(map(len, steps)), round(seconds * rate)
        steps.append(velocities(rng, label, count, rate))
        if label != BACKGROUND:
            spans.append((start, start + count, label))
    begin = rng.uniform(0, 1, (1, 2)) * (picture.width / picture.height, 1)
    return paint(rng, begin + np.cumsum(np.concatenate(steps), axis=0) / rate, picture), spans


def write_demo(folder: Path, picture: Picture, seed: int = 2026, clips: int = 26) -> None:
    """A scene of all motions as ``scene.mp4`` with the truth in ``scene.csv``, and ``clips`` videos in
    ``folder/clips``.
    """
    rng = np.random.default_rng(seed)
    order = [str(label) for label in rng.permutation([label for label in LABELS if label != BACKGROUND])]
    images, spans = compose(rng, order, 1.6, (0.6, 1.4), picture)
    data = MovingShapes(seed=seed, held_out=clips).split("test", InputSpec(picture=picture))
    write_recordings(folder, images, spans, [data[index] for index in range(clips)], picture.rate, write_video, "mp4")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write_demo(Path(sys.argv[1]), Picture(30, 128, 128))
