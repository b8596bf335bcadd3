"""A picture with what the model thinks of it beside it, for people to look at.

Pure functions of values: a ``Plan`` says where things stand, a ``Scene`` what is known at one moment. OpenCV draws the
text, because its own fonts have the letters of most languages.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.picture import Image
from pipeline.sinks.items import TimedEvent

MIN_HEIGHT = 480  # pixels; lower pictures are enlarged to it, so that there is room for text
CRISP_HEIGHT = 100  # pixels; lower pictures keep hard edges: each of so few pixels counts
MAX_WIDTH = 1920  # pixels to which wide pictures are enlarged at most
WIDE_RATIO = 2.2  # pictures of this shape and wider have the panel below instead of beside
MAX_CLASSES, MAX_LETTERS = 6, 99  # classes, and letters of each, at most
SIDE_EM, BELOW_EM = 16.5, 11.5  # width of a panel beside, height of one below; in em, as all sizes that follow
MARGIN, HEAD, BAR, LINE = 1.0, 3.0, 2.1, 1.7

Colour = tuple[int, int, int]
BACK, TROUGH, DIM, TEXT, DARK = (20, 22, 27), (44, 48, 57), (150, 156, 168), (240, 242, 246), (16, 18, 22)
GOOD, FAIR, BAD = (76, 200, 128), (245, 190, 70), (240, 90, 80)
QUIET = (128, 136, 150)  # of the class "background"
COLOURS = [
    (86, 180, 255), (255, 159, 64), (110, 214, 130), (240, 110, 170), (178, 140, 255), (245, 215, 80), (64, 214, 200),
    (255, 110, 90),
]  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What is known at ``seconds``.

    ``posteriors (K,)`` of the ``labels``, if there are any; the events that are ``running``, and those that have
    ``ended``, the last one last; ``age`` of a live answer in seconds; ``notice``: why there is no picture.
    """

    labels: list[str]
    seconds: float
    posteriors: NDArray[np.float32] | None = None
    running: tuple[TimedEvent, ...] = ()
    ended: tuple[TimedEvent, ...] = ()
    age: float | None = None
    notice: str = ""


class Plan(NamedTuple):
    """A canvas of ``height`` x ``width`` pixels (even numbers): the picture, ``tall`` x ``broad``, in its upper left
    corner, and the panel beside or ``below`` it. ``em``: pixels of the size of the text; ``crisp``: pixels of the
    picture stay squares.
    """

    height: int
    width: int
    tall: int
    broad: int
    below: bool
    em: int
    crisp: bool


def plan(height: int, width: int) -> Plan:
    """A plan for pictures of this size."""
    crisp, factor = height < CRISP_HEIGHT, max(1.0, min(MIN_HEIGHT / height, MAX_WIDTH / width))
    factor = ceil(factor) if crisp else factor
    tall, broad = round(height * factor), round(width * factor)
    em = max(16, round(20 * (tall / MIN_HEIGHT) ** 0.75))
    below = broad >= WIDE_RATIO * tall
    height, width = (tall + round(BELOW_EM * em), broad) if below else (tall, broad + round(SIDE_EM * em))
    return Plan(height + height % 2, width + width % 2, tall, broad, below, em, crisp)


def draw(image: Image, scene: Scene, place: Plan) -> Image:
    """The canvas ``(height, width, 3)`` of a plan; a picture ``(h, w, 3)`` of another shape stands in the middle.

    ConfigError if the OpenCV that is installed is too old.
    """
    canvas = np.empty((place.height, place.width, 3), np.uint8)
    pen = Pen(canvas, place.em)
    canvas[:] = BACK
    shown = canvas[: place.tall, : place.broad]
    put(image, shown, place.crisp, pen.cv2)
    if scene.notice:
        notice(pen, scene.notice, shown)
    elif scene.running:  # a frame of the event's colour
        thick = max(2, place.em // 5)
        for edge in (np.s_[:thick], np.s_[-thick:], np.s_[:, :thick], np.s_[:, -thick:]):
            shown[edge] = colour_of(scene.labels, scene.running[-1].label)
    panel(pen, scene, place)
    return canvas


def put(image: Image, shown: Image, crisp: bool, cv2: Any) -> None:
    """Draw a picture into the part of the canvas for it, as large as it fits."""
    height, width = shown.shape[:2]
    factor = min(height / image.shape[0], width / image.shape[1])
    tall, broad = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
    top, left = (height - tall) // 2, (width - broad) // 2
    how = cv2.INTER_NEAREST if crisp else cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    fitted = image if factor == 1 else cv2.resize(np.ascontiguousarray(image), (broad, tall), interpolation=how)
    shown[top : top + tall, left : left + broad] = fitted


def notice(pen: "Pen", text: str, shown: Image) -> None:
    """Darken the picture, and say why it stands still."""
    shown[:] = shown // 3
    middle, room = shown.shape[0] / 2 / pen.em, shown.shape[1] / pen.em
    size = min(1.3, 0.85 * room / max(1.0, pen.width(text, 1.0, 600)))
    pen.fill(0, middle - 1.3, room, 2.6, DARK)
    pen.fill(0, middle - 1.3, 0.3, 2.6, FAIR)
    pen.text((room - pen.width(text, size, 600)) / 2, middle + 0.35 * size, text, TEXT, size, 600)


def panel(pen: "Pen", scene: Scene, place: Plan) -> None:
    """Time and age, the classes, the events."""
    top, left = (place.tall / pen.em, 0.0) if place.below else (0.0, place.broad / pen.em)
    width = place.width / pen.em - left
    room = (width - 3 * MARGIN) / 2 if place.below else width - 2 * MARGIN
    left, top, bottom = left + MARGIN, top + MARGIN, place.height / pen.em - 0.5 * MARGIN
    head(pen, scene, left, top, room)
    spare = bottom - top - HEAD - (0 if place.below else 4 * LINE)
    end = bars(pen, scene, left, top + HEAD, room, max(1, min(MAX_CLASSES, int(spare / BAR))))
    if place.below:
        left, end = left + room + MARGIN, top - 0.5
    events(pen, scene, left, end + 0.5, room, bottom)


def head(pen: "Pen", scene: Scene, left: float, top: float, room: float) -> None:
    """The time, and how old a live answer is."""
    pen.text(left, top + 1.4, clock(scene.seconds), TEXT, 1.7, 600)
    if scene.age is not None:
        colour = GOOD if scene.age < 0.2 else FAIR if scene.age < 1 else BAD
        text = f"{1000 * scene.age:.0f} ms" if scene.age < 1 else f"{scene.age:.1f} s"
        start = left + room - pen.width(text, 0.9)
        pen.text(start, top + 1.4, text, DIM, 0.9)
        pen.dot(start - 0.7, top + 1.1, 0.3, colour)


def bars(pen: "Pen", scene: Scene, left: float, top: float, room: float, rows: int) -> float:
    """A bar for each class in its own order, or for the first few, the likeliest on top; where they end."""
    found = scene.posteriors
    count = len(scene.labels)
    order = list(range(count)) if count <= rows or found is None else np.argsort(-found, kind="stable").tolist()
    for index in order[:rows]:
        score = 0.0 if found is None else float(found[index])
        first = found is not None and index == int(found.argmax())
        value = "" if found is None else f"{100 * score:.0f} %" if 0 <= score <= 1 else f"{score:.4g}"
        gap = pen.width(value, 0.9) + 0.5
        pen.text(left + room - gap + 0.5, top + 1.0, value, TEXT if first else DIM, 0.9)
        pen.text(left, top + 1.0, scene.labels[index], TEXT if first else DIM, 1.0, 600 if first else 400, room - gap)
        pen.fill(left, top + 1.3, room, 0.35, TROUGH)
        if score > 0:
            pen.fill(left, top + 1.3, room * min(1.0, score), 0.35, colour_of(scene.labels, scene.labels[index]))
        top += BAR
    return top


def events(pen: "Pen", scene: Scene, left: float, top: float, room: float, bottom: float) -> None:
    """What is running, in colour, and under it what has ended, the last one first."""
    pen.text(left, top + 1.0, "EVENTS", DIM, 0.75, 600)
    top += LINE
    for span in reversed(scene.running):
        if top + LINE > bottom:
            return
        time = f"{max(0.0, scene.seconds - span.start):.1f} s"
        start = left + room - pen.width(time, 0.9, 600) - 0.5
        pen.fill(left, top, room, LINE - 0.25, colour_of(scene.labels, span.label))
        pen.text(start, top + 1.05, time, DARK, 0.9, 600)
        pen.text(left + 0.5, top + 1.05, span.label, DARK, 1.0, 600, start - left - 1.0)
        top += LINE
    for span in reversed(scene.ended):
        if top + LINE > bottom:
            return
        time = f"{clock(span.start)} – {clock(span.end)}"
        start = left + room - pen.width(time, 0.8)
        pen.dot(left + 0.35, top + 0.75, 0.28, colour_of(scene.labels, span.label))
        pen.text(start, top + 1.05, time, DIM, 0.8)
        pen.text(left + 1.0, top + 1.05, span.label, TEXT, 0.95, 400, start - left - 1.5)
        top += LINE


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any."""
    tenths = round(max(0.0, seconds) * 10)
    hours, minutes = divmod(tenths // 600, 60)
    rest = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def colour_of(labels: list[str], label: str) -> Colour:
    """Each class has its colour."""
    if label == "background" or label not in labels:
        return QUIET
    return COLOURS[labels.index(label) % len(COLOURS)]


@lru_cache(1)
def font() -> tuple[Any, Any]:
    """OpenCV and its sans-serif; ConfigError if it has none."""
    import cv2

    if not hasattr(cv2, "FontFace"):
        raise ConfigError(f"sink: text on pictures needs OpenCV 5, got {cv2.__version__}; pip install -U opencv-python")
    return cv2, cv2.FontFace("sans")


class Pen:
    """Draws on a canvas; all places and sizes are in em, text stands on its base line."""

    def __init__(self, canvas: Image, em: int) -> None:
        self.canvas, self.em = canvas, em
        self.cv2, self.face = font()

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self.em), round(y * self.em)

    def width(self, text: str, size: float = 1.0, weight: int = 400) -> float:
        """Width of a text in em."""
        ends = self.cv2.getTextSize((0, 0), clean(text), (0, 0), self.face, round(size * self.em), weight, 0, ENDLESS)
        return float(ends[2]) / self.em

    def text(
        self, x: float, y: float, text: str, colour: Colour, size: float = 1.0, weight: int = 400, room: float = 1e9
    ) -> None:
        """Text; its end is left out where it is wider than the room."""
        line = clean(text)
        if self.width(line, size, weight) > room:
            line = line[:MAX_LETTERS]
            while line and self.width(line + "…", size, weight) > room:
                line = line[:-1]
            line += "…"
        self.cv2.putText(
            self.canvas, line, self.pixel(x, y), colour, self.face, round(size * self.em), weight, 0, ENDLESS
        )

    def fill(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        (left, top), (right, bottom) = self.pixel(x, y), self.pixel(x + width, y + height)
        if right > left and bottom > top:
            self.cv2.rectangle(self.canvas, (left, top), (right - 1, bottom - 1), colour, -1)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.cv2.circle(self.canvas, self.pixel(x, y), round(radius * self.em), colour, -1, self.cv2.LINE_AA)


ENDLESS = (0, 1 << 30)  # lines are never wrapped
