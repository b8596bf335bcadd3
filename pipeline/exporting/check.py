"""Whether a graph tells of clips what its model tells of them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import ConfigError
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import Arrays
from pipeline.model.stream_model import StreamModel
from pipeline.streaming.stream import Stream


class Check(NamedTuple):
    """Of so many ``clips``: how many have the ``same`` label, and are right ``before`` (by the model) and ``after``."""

    clips: int
    same: int
    before: int
    after: int

    def __str__(self) -> str:
        changed, share = self.clips - self.same, 100 / self.clips
        return (
            f"labels of {self.clips} test clips: {self.same} equal, {changed} changed; right "
            f"{self.before * share:.1f} % before, {self.after * share:.1f} % after"
        )


def check(model: StreamModel, graph: StreamModel, clips: Iterable[tuple[Path, str]]) -> Check:
    """Compare the answers to clips, each with its label. ConfigError if there are none, or the model has no labels."""
    if model.link == "linear":
        raise ConfigError("--check: compares labels, which a model of task=values does not have; leave it out")
    rows = [tells(model, graph, path, truth) for path, truth in clips]
    if not rows:
        raise ConfigError("--check: the run's answers.jsonl names no test clips that are files")
    return Check(len(rows), *(sum(column) for column in zip(*rows, strict=True)))


def test_clips(run: Path) -> Iterator[tuple[Path, str]]:
    """The test clips that a run has answered, and what is true of them; those that are files."""
    if (run / "answers.jsonl").is_file():
        for line in (run / "answers.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["split"] == "test" and Path(row["name"]).is_file():
                yield Path(row["name"]), row["truth"]


def tells(model: StreamModel, graph: StreamModel, path: Path, truth: str) -> tuple[bool, bool, bool]:
    """Whether both tell the same of a clip, and whether each is right."""
    parts, _ = read_chunk(path, model.spec)
    before, after = (answer(one, graph.unit, parts) for one in (model, graph))
    return before == after, before == truth, after == truth


def answer(model: StreamModel, ticks: int, parts: Arrays) -> str:
    """What a model tells of a clip, in blocks of so many ticks."""
    stream = Stream(model, ticks // model.hop)
    events = stream.push(parts)
    last = stream.posteriors[-1:]
    events += stream.close()
    return stream.decoder.choose([*last, *stream.posteriors][-1], model.link, events)
