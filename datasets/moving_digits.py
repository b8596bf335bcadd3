"""Handwritten digits that move over a textured ground and bounce off the borders, made on the fly.

The digits are the 1,797 pictures of 8x8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, the test set of
"Optical Recognition of Handwritten Digits"), enlarged. Each picture stands in one split only; whose hand wrote it is
not recorded, so hands may be shared.

``classes: digit``: the label is the digit, whatever its motion; until it appears, the ground is empty (``background``).
``classes: motion``: the label is the motion, whatever the digit: one of eight directions, or ``still``. A direction
holds until the next bounce, and its span with it; the clip's label is the direction in which it ends, which has been
the same for at least ``HELD_SECONDS`` seconds.
"""

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from datasets.generated import Film, Motions, Rng, add_camera_noise, draw_colours, draw_ground
from pipeline.media.picture import Picture

EMPTY, STILL = "background", "still"
DIGITS = [str(digit) for digit in range(10)]
WAYS = {
    "right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1),
    "right_down": (1, 1), "right_up": (1, -1), "left_down": (-1, 1), "left_up": (-1, -1),
}  # fmt: skip
NAMES = {way: name for name, way in WAYS.items()}
SIDE_SHARES = (0.45, 0.6)  # of a digit, as a share of the shorter side of the picture
SPEEDS = (0.3, 0.7)  # shorter sides per second, along each axis that moves
HELD_SECONDS = 0.3  # before a clip's end in which nothing bounces
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}  # of the pictures of each digit


@cache
def load_digit_images(split: str) -> list[NDArray[Any]]:
    """The pictures ``(n, 8, 8)`` of one split in 0 ... 1, by digit. The same draw for every seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rng, found = np.random.default_rng(0), []
    for digit in range(10):
        images = rng.permutation(data.images[data.target == digit]) / 16
        first, last = (round(share * len(images)) for share in SHARES[split])
        found.append(images[first:last])
    return found


def draw_digit(
    sight: NDArray[Any], image: NDArray[Any], corner: NDArray[Any], size: float, colour: NDArray[Any]
) -> None:
    """Draw ``image (8, 8)``, ``size`` picture heights large, with its upper left corner at ``corner (T, 2)``."""
    height, width = sight.shape[1:3]
    across = interpolation_weights(np.arange(width), corner[:, 0] * height, size * height, len(image))
    along = interpolation_weights(np.arange(height), corner[:, 1] * height, size * height, len(image))
    share = np.einsum("thi,ij,twj->thw", along, image, across, optimize=True)[..., None].astype(np.float32)
    sight += share * (colour.astype(np.float32) - sight)


def interpolation_weights(pixels: NDArray[Any], start: NDArray[Any], size: float, count: int) -> NDArray[Any]:
    """Weights of linear interpolation ``(T, len(pixels), count)`` from ``count`` cells on ``size`` pixels."""
    place = (pixels + 0.5 - start[:, None]) * count / size - 0.5
    weights: NDArray[Any] = (1 - np.abs(place[..., None] - np.arange(count))).clip(0)
    return weights


@dataclass(eq=False)
class MovingDigits(Motions):
    """One digit in each clip, or an empty ground if digits are the classes and it is ``background``'s turn.

    ``classes``: what the label is. Before a digit moves, the ground is empty (``digit``), or it stands still
    (``motion``).
    """

    title = "moving_digits"
    clips: PositiveInt = 990
    held_out: PositiveInt = 495
    classes: Literal["digit", "motion"] = "digit"

    def __post_init__(self) -> None:
        digits = self.classes == "digit"
        self.labels, self.background = ([*DIGITS, EMPTY], EMPTY) if digits else ([*sorted(WAYS), STILL], STILL)

    def motion(self, rng: Rng, label: str, split: str, picture: Picture) -> Film:
        """A digit of ``split`` before a ground; any direction where the digit is the label, any digit otherwise."""
        before, count = 1 + round(rng.uniform(0, self.gap) * picture.rate), round(self.seconds * picture.rate)
        samples = load_digit_images(split)[int(label) if label in DIGITS else int(rng.integers(10))]
        image = samples[rng.integers(len(samples))]
        wide = picture.width / picture.height
        side, angle = min(1.0, wide), rng.uniform(0, 2 * np.pi)  # the shorter side, in picture heights
        size = side * rng.uniform(*SIDE_SHARES)
        way = WAYS.get(label, (0, 0)) if self.classes == "motion" else (np.cos(angle), np.sin(angle))
        velocity = side * rng.uniform(*SPEEDS) * np.array(way)
        steps = np.concatenate([np.full(before, -count), np.arange(1 - count, 1)]) / picture.rate
        place = route(rng, velocity, np.array([wide, 1.0]) - size, steps)

        ground = draw_ground(rng, picture.height, picture.width)
        sight = np.repeat(ground[None], before + count, axis=0)
        shown = 0 if self.classes == "motion" else before
        if label != EMPTY:
            draw_digit(sight[shown:], image, place[shown:], size, draw_colours(rng, ground)[0])
        images = add_camera_noise(rng, sight)
        if label == self.background:
            return images, []
        if self.classes == "digit":
            return images, [(before, before + count, label)]
        return images, runs(step_directions(place[before - 1 :], velocity), before)


def route(rng: Rng, velocity: NDArray[Any], room: NDArray[Any], steps: NDArray[Any]) -> NDArray[Any]:
    """Places ``(T, 2)`` between walls at 0 and ``room`` of what at last moves by ``velocity (2,)`` a second.

    ``steps (T,)``: seconds, rising to 0 at the end. The end is uniform among the places that are reached without a
    bounce in the last ``HELD_SECONDS`` seconds.
    """
    speed = np.abs(velocity)
    end = rng.uniform(HELD_SECONDS * speed, room)  # as if it moved to the right and down
    phase = (end + speed * steps[:, None]) % (2 * room)  # there and back: a straight line, folded at the walls
    place: NDArray[Any] = np.where(velocity < 0, np.abs(phase - room), room - np.abs(phase - room))
    return place


def step_directions(place: NDArray[Any], velocity: NDArray[Any]) -> list[str]:
    """The direction of each step between places ``(T, 2)``; an axis without velocity has none."""
    ways = np.where(np.diff(place, axis=0) < 0, -1, 1) * (velocity != 0)
    return [NAMES[across, along] for across, along in ways.tolist()]


def runs(names: list[str], start: int) -> list[tuple[int, int, str]]:
    """Runs of one name as ``(start, end, name)``, the first of which begins at ``start``."""
    spans = []
    for name, run in groupby(names):
        spans.append((start, start + len(list(run)), name))
        start = spans[-1][1]
    return spans
