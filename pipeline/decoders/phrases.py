"""A closed list of phrases: how likely each of them is, step by step, by a trie over the columns of a CTC model."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.text import clean
from pipeline.media.tables import to_label

LEAST = 1e-30  # a posterior below this counts as this much
MAX_BYTES = 10_000_000  # of a list
MAX_NODES = 40_000  # of a trie, whose state must fit into a snapshot's header


class Trie:
    """The beginnings of all phrases, each a node with the logs of two probabilities: that it was said, and the last
    step is a blank, or its last symbol. They are the forward variables of CTC (Graves et al. 2006, equation 6), here
    beside the best column of each step: 0 is as likely as the likeliest path.
    """

    def __init__(self, phrases: Sequence[str], labels: Sequence[str]) -> None:
        """ValueError for a word that is none of the labels but the blank, the last, and for no phrase or too many."""
        places = {label: column for column, label in enumerate(labels[:-1])}
        parents, columns, nodes = [0], [len(labels) - 1], dict[tuple[int, int], int]()
        ends: dict[int, str] = {}
        for number, phrase in enumerate(phrases, 1):
            node, words = 0, [word if word in places else to_label(word) for word in phrase.split()]
            for word in words:
                if word not in places:
                    hint = nearest(word, list(places))
                    raise ValueError(f"decoder.phrases: line {number}: the model has no word {word!r}{hint}")
                key = node, places[word]
                if key not in nodes:
                    nodes[key] = len(parents)
                    parents.append(node)
                    columns.append(places[word])
                node = nodes[key]
            if len(parents) > MAX_NODES:
                raise ValueError(
                    f"decoder.phrases: line {number}: more than {MAX_NODES} words, of which common beginnings count "
                    "once; expected a shorter list"
                )
            ends |= {node: " ".join(words)} if node else {}
        if not ends:
            raise ValueError("decoder.phrases: holds no phrase; expected one a line")
        self.parents, self.columns = np.array(parents), np.array(columns)
        self.nodes, self.texts = np.array([*ends]), [*ends.values()]
        self.again = self.columns == self.columns[self.parents]  # the symbol of its parent: only behind a blank
        self.begin()

    def begin(self) -> None:
        """Nothing was said."""
        self.blank = np.full(len(self.parents), -np.inf)
        self.symbol = self.blank.copy()
        self.blank[0] = 0.0

    def step(self, posteriors: NDArray[np.float32]) -> None:
        """One step on, of posteriors ``(K,)``."""
        logs = np.log(np.maximum(posteriors.astype(np.float64), LEAST))
        logs -= logs.max()
        either = np.logaddexp(self.blank, self.symbol)
        before = np.where(self.again, self.blank[self.parents], either[self.parents])
        before[0] = -np.inf
        self.blank, self.symbol = either + logs[-1], np.logaddexp(self.symbol, before) + logs[self.columns]

    def best(self) -> tuple[str, float]:
        """The likeliest phrase, and how likely it is beside the best columns, 0 to 1."""
        found = np.logaddexp(self.blank, self.symbol)[self.nodes]
        return self.texts[int(found.argmax())], min(1.0, float(np.exp(found.max())))

    def snapshot(self) -> str:
        """The probabilities, to the bit."""
        return base64.b64encode(np.stack([self.blank, self.symbol]).astype("<f8").tobytes()).decode()

    def restore(self, text: str) -> None:
        """Those of a ``snapshot``. ValueError if they are not of such a list."""
        found = np.frombuffer(base64.b64decode(text, validate=True), "<f8")
        if len(found) != 2 * len(self.parents) or np.isnan(found).any():
            raise ValueError("its list of phrases is another")
        self.blank, self.symbol = found.reshape(2, -1).astype(np.float64)


def read_phrases(path: str, labels: Sequence[str]) -> list[str]:
    """The phrases of a file, one a line. ConfigError if it cannot be read, is too long, holds none, or a word
    that is no label.
    """
    try:
        with open(Path(path).expanduser(), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"decoder.phrases: more than {MAX_BYTES} bytes; expected a shorter list")
        lines = data.decode("utf-8-sig").splitlines()
        Trie(lines, labels)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"decoder.phrases: {clean(path)} cannot be read ({error}); expected a text, a phrase a line"
        ) from None
    except ValueError as error:
        raise ConfigError(str(error).replace("decoder.phrases:", f"decoder.phrases: {clean(path)},", 1)) from None
    return [line for line in lines if line.strip()]
