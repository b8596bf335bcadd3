"""A window in a process of its own.

Not in ours, because Qt ends a process that cannot reach a display, and because OpenCV's window hangs for ever where
PyAV was imported before it: both bring their own libxcb. This file is the other process, too; it has only OpenCV and
NumPy, and keeps the window alive while nothing comes.
"""

import os
import select
import signal
import struct
import subprocess
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # (H, W, 3)
OPENING_SECONDS = 60.0  # a busy machine starts processes slowly
HEAD = struct.Struct("<II")  # height and width, before the pixels
FREE = b"f"  # what the window answers: it takes a picture
MARKS = ("could not connect", "not implemented", "could not load", "display", "error")  # of a line that says why
QUIT_KEYS = {ord("q"), ord("Q"), 27}  # 27: Esc
TURN_MILLISECONDS = 10  # that the window lives between two looks at what has come
GREY = 22  # before the first picture


class NoDisplayError(Exception):
    """No window can be opened; the message says why."""


class Display:
    """An open window. It shows the newest picture, as fast as it can; q, Esc and closing it end its process."""

    def __init__(self, title: str, height: int) -> None:
        """At first, it is as large as ``height`` pixels and 16:9 allow. NoDisplayError if no window can be opened."""
        if sys.platform not in ("win32", "darwin") and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            raise NoDisplayError("there is no display (DISPLAY is not set)")
        command = [sys.executable, "-P", __file__, title.encode("utf-8", "replace").decode(), str(height)]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.free = self.gone = False  # whether it takes another picture; whether it is closed
        self.read_answers(OPENING_SECONDS)
        if not self.free:
            self.child.kill()
            raise NoDisplayError(find_reason(self.child.communicate()[1].decode(errors="replace")))

    def read_answers(self, seconds: float = 0.0) -> None:
        """What the window says, if it says something within so many seconds."""
        assert self.child.stdout is not None
        while not self.gone and select.select([self.child.stdout], [], [], seconds)[0]:
            self.free, seconds = bool(os.read(self.child.stdout.fileno(), 1)), 0.0
            self.gone = not self.free

    @property
    def closed(self) -> bool:
        """Whether the user has closed the window."""
        self.read_answers()
        return self.gone

    @property
    def broken(self) -> bool:
        """Whether a closed window has broken down instead."""
        return self.child.wait() != 0

    def show(self, image: Rgb) -> None:
        """Show a picture ``(H, W, 3)`` RGB, unless the window is closed, or still works on the one before."""
        assert self.child.stdin is not None
        if self.closed or not self.free:
            return
        self.free = False
        with suppress(OSError):  # closed just now
            self.child.stdin.write(HEAD.pack(*image.shape[:2]))
            self.child.stdin.write(np.ascontiguousarray(image).data.cast("B"))
            self.child.stdin.flush()

    def close(self) -> None:
        assert self.child.stdin is not None
        with suppress(OSError):
            self.child.stdin.close()
        with self.child:  # which closes the other pipes
            try:
                self.child.wait(2.0)
            except subprocess.TimeoutExpired:
                self.child.kill()


def find_reason(text: str) -> str:
    """The line in which a library says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for mark in MARKS for line in lines if mark in line.lower()]
    return f"no window can be opened ({(told or lines or ['for no reason given'])[0]})"


def read_picture() -> Rgb | None:
    """In the other process: the picture that has come; None once no more can."""
    pipe = sys.stdin.buffer
    if len(head := pipe.read(HEAD.size)) < HEAD.size:
        return None
    height, width = HEAD.unpack(head)
    pixels = pipe.read(height * width * 3)
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3) if len(pixels) == height * width * 3 else None


def main(title: str, height: int) -> None:
    """The other process: show what comes until the window or the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    import cv2

    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(title, height * 16 // 9, height)
    cv2.imshow(title, np.full((90, 160, 3), GREY, np.uint8))
    cv2.waitKey(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent reads no further
    os.write(1, FREE)
    sized = visible = False
    while cv2.waitKey(TURN_MILLISECONDS) & 0xFF not in QUIT_KEYS:
        now = cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
        if visible and not now:
            return
        visible = now  # some systems never say that a window is
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        image = read_picture()
        if image is None:
            return
        if not sized:
            factor = min(height / image.shape[0], height * 16 / 9 / image.shape[1])
            cv2.resizeWindow(title, round(image.shape[1] * factor), round(image.shape[0] * factor))
            sized = True
        cv2.imshow(title, image[..., ::-1])
        os.write(1, FREE)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main(sys.argv[1], int(sys.argv[2]))
    os._exit(0)  # without asking libraries, one of which may have lost its display
