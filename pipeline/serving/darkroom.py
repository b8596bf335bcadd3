"""JPEGs of clients become arrays of a model, in a thread of its own: decoding holds up neither network nor model."""

import queue
from typing import Any

import numpy as np

from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Image
from pipeline.serving.messages import MALFORMED, Refused
from pipeline.serving.orders import Chunk, Gone, Leave, Parts, Shown, Stop


class Darkroom:
    """Between the network and the hall: all orders pass through in order, and chunks come out as ``Parts``."""

    def __init__(self, spec: InputSpec, onward: queue.SimpleQueue[Any]) -> None:
        """``onward``: where they go; an order that cannot be obeyed becomes Refused."""
        self.spec, self.onward = spec, onward
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.newest: dict[Any, tuple[bytes, Image]] = {}  # of each client: pictures often stand for several places

    def run(self) -> None:
        """Until Stop comes."""
        order: Any = None
        while not isinstance(order, Stop):
            client, order = self.inbox.get()
            if isinstance(order, Gone | Leave):
                self.newest.pop(client, None)
            if isinstance(order, Chunk):
                try:
                    order = self.develop(client, order)
                except Refused as error:
                    order = error
            self.onward.put((client, order))

    def develop(self, client: Any, chunk: Chunk) -> Parts:
        """Refused if a picture is damaged."""
        assert self.spec.picture is not None
        images, shown = [], list[Shown]()
        black = np.zeros((self.spec.picture.height, self.spec.picture.width, 3), np.uint8)
        for place, data in enumerate(chunk.pictures):
            if data is not None and self.newest.get(client, (b"",))[0] is not data:
                image = decoded(data)
                shown.append((place, image))
                self.newest[client] = data, self.spec.picture.fit(image)
            images.append(black if data is None else self.newest[client][1])
        pictures = np.stack(images)
        if chunk.sound is None:
            return Parts((pictures,), shown)
        marks = np.array([chunk.heard, [data is not None for data in chunk.pictures]], np.float32).T
        return Parts((chunk.sound, pictures, marks), shown)


def decoded(data: bytes) -> Image:
    """A JPEG as RGB ``(H, W, 3)``. Refused if it is damaged."""
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise Refused(MALFORMED, "a JPEG that cannot be decoded")
    return np.ascontiguousarray(image[:, :, ::-1], np.uint8)
