"""BlazePose: the points of one person in a picture, found in a region that a detector, or the points before, tell.

Bazarevsky et al., BlazePose: On-device Real-time Body Pose tracking (2020, arXiv 2006.10204). The networks are those of
the package mediapipe, run by LiteRT; what is between them follows its graph ``pose_landmark_cpu``, but for the
smoothing over time and the heat maps.
"""

from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile

PACKAGE, FOLDER = ("mediapipe", "0.10.21"), "mediapipe/modules/pose_"
LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"
DETECTOR = PackageFile(
    *PACKAGE,
    f"{FOLDER}detection/pose_detection.tflite",
    "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    LICENCE,
    extra="pose",
)
LANDMARKS = PackageFile(
    *PACKAGE,
    f"{FOLDER}landmark/pose_landmark_full.tflite",
    "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    LICENCE,
    extra="pose",
)
SURE = 0.5  # least score of a person that is detected, and of points that are those of a person
ROOM = 1.25  # of a region, about the circle round a person
LOOKS = (0.0, 1.0), (0.0, 0.75), (-0.125, 0.75), (0.125, 0.75)  # squares: how far aside, and side, in long sides
CELLS = (28, 2), (14, 2), (7, 6)  # a side of each grid over the picture, and guesses in each of its cells
MIDDLE, EDGE = 33, 34  # the points that give the next region: between the hips, and on the circle
COUNT = 39  # points, of five numbers each

Array = NDArray[np.float32]


class Network:
    """A file of LiteRT: a picture ``(N, N, 3)``, from 0 to 255, to its outputs. A child process opens it again."""

    def __init__(self, path: Path, low: float) -> None:
        """``low``: what black is to it; white is 1."""
        self.path, self.low = path, low

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "low": self.low}

    @cached_property
    def runner(self) -> Any:
        """One thread, so that sums are added up in one order. ConfigError without the runtime."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ConfigError(f"extractor=pose needs LiteRT, which runs its networks: `{LANDMARKS.setup}`") from None
        runner = Interpreter(str(self.path), num_threads=1)
        runner.allocate_tensors()
        return runner

    def __call__(self, picture: NDArray[Any]) -> list[Array]:
        """The outputs, without their batch, in the order of their names."""
        runner = self.runner
        x = np.float32(self.low) + picture.astype(np.float32) * np.float32((1 - self.low) / 255)
        runner.set_tensor(runner.get_input_details()[0]["index"], x[None])
        runner.invoke()
        outputs = sorted(runner.get_output_details(), key=lambda one: one["name"])
        return [runner.get_tensor(one["index"])[0] for one in outputs]


class BlazePose:
    """Both networks. ``folder``: where their files are, if not in the package."""

    def __init__(self, folder: str | None) -> None:
        """ConfigError if a file is missing, or another one."""
        detector, landmarks = (
            one.find(str(Path(folder) / Path(one.path).name) if folder else None, "extractor.path")
            for one in (DETECTOR, LANDMARKS)
        )
        self.detector, self.landmarks = Network(detector, -1.0), Network(landmarks, 0.0)

    def detect(self, picture: NDArray[Any], look: int = 0) -> Array | None:
        """The region ``(4,)`` of the person who is surest to be in a picture ``(H, W, 3)``, if any is; of those in the
        square ``LOOKS[look]``: who is far away is only seen in a part of it.
        """
        size = np.array(picture.shape[1::-1])
        aside, share = LOOKS[look]
        square = np.array([*size / 2 + aside * size.max() * (size == size.max()), share * size.max(), 0], np.float32)
        boxes, scores = self.detector(cut(picture, square, 224))
        best = int(scores.argmax())
        if scores[best, 0] < np.log(SURE / (1 - SURE)):
            return None
        points = boxes[best, 4:8].reshape(2, 2) + 224 * anchors()[best]
        return region_of(*to_picture(points, square, 224))

    def look(self, picture: NDArray[Any], region: Array) -> tuple[Array, Array] | None:
        """The 39 points ``(39, 2)`` in pixels of the person in a region, and the region for the next picture; None if
        nobody is there.
        """
        points, score, *_ = self.landmarks(cut(picture, region, 256))
        if score[0] < SURE:
            return None
        found = to_picture(points.reshape(COUNT, 5)[:, :2], region, 256)
        return found, region_of(found[MIDDLE], found[EDGE])


def region_of(middle: Array, edge: Array) -> Array:
    """A square ``(across, down, side, angle)`` round a person, in pixels and radians, upright where the line from the
    middle to the edge of their circle is.
    """
    x, y = edge - middle
    return np.array([*middle, 2 * ROOM * np.hypot(x, y), np.arctan2(x, -y)], np.float32)


def axes(region: Array, size: int) -> NDArray[np.float64]:
    """The matrix ``(2, 3)`` from pixels of a region of ``size`` a side to those of the picture."""
    across, down, side, angle = region.astype(np.float64)
    scale = side / size
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, np.array([[across], [down]]) - turn @ np.full((2, 1), size / 2)], 1)


def cut(picture: NDArray[Any], region: Array, size: int) -> NDArray[Any]:
    """A region of a picture ``(size, size, 3)``, black where the picture ends."""
    import cv2

    matrix = axes(region, size)
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # from the corners of pixels to their middles
    part: NDArray[Any] = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return part


def to_picture(points: Array, region: Array, size: int) -> Array:
    """Points ``(N, 2)`` of a region to pixels of the picture."""
    matrix = axes(region, size)
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@cache
def anchors() -> Array:
    """The middle of the cell ``(2254, 2)`` of each guess, from 0 to 1, row by row."""
    grids = []
    for side, guesses in CELLS:
        down, across = np.indices((side, side)).reshape(2, -1)
        grids.append(np.repeat(np.stack([across, down], 1) + 0.5, guesses, 0) / side)
    return np.concatenate(grids).astype(np.float32)
