"""Sequence to sequence of different lengths: dates in words to figures, "the third of march nineteen ninety seven" to 1997-03-03.

    python benchmarks/dates.py

An example of what ``pipeline/encoders/unroll.py`` is for (Sutskever, Vinyals & Le, NeurIPS 2014). A cell reads the words of a date, as
many as there are (``ragged``). Its state at the end is the state in which another cell begins, which is told its own last answer
(``generate``). In training it is told the right one, so a whole date is one call. It is no task of ``train.py``: a translation begins when
the sentence is over, so there is no stream to answer.
"""

import argparse
import calendar
import datetime
import random
import sys
import time
from pathlib import Path

import torch
from rich.progress import track
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cells.lstm import LSTM
from pipeline.encoders.unroll import generate, ragged
from pipeline.layers.stage import Stage

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONTHS = [month.lower() for month in calendar.month_name[1:]]
FIGURES = "0123456789-^"  # ^: begin
FORMS = (
    "the {day} of {month} {year}",
    "{month} {day} {year}",
    "{weekday} the {day} of {month} {year}",
    "{weekday} {month} {day} {year}",
)


def cardinal(number):
    """A number below 100 in words."""
    if number < 20:
        return ONES[number]
    return " ".join([TENS[number // 10 - 2], *([ONES[number % 10]] if number % 10 else [])])


def ordinal(number):
    """The same as a place: third, twenty first."""
    *before, last = cardinal(number).split()
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*before, ORDINALS.get(last, regular)])


def year_in_words(year):
    """nineteen ninety seven, nineteen hundred, two thousand five."""
    if 2000 <= year < 2010:
        return "two thousand" + (f" {ONES[year % 10]}" if year % 10 else "")
    rest = year % 100
    return f"{cardinal(year // 100)} " + ("hundred" if not rest else cardinal(rest) if rest > 9 else f"oh {ONES[rest]}")


def spell(date, form):
    """A date as one of the FORMS says it."""
    words = {"day": ordinal(date.day), "month": MONTHS[date.month - 1], "year": year_in_words(date.year)}
    return form.format(weekday=date.strftime("%A").lower(), **words)


def all_dates():
    """Of two centuries, in a random order that is always the same."""
    first = datetime.date(1900, 1, 1)
    dates = [first + datetime.timedelta(days) for days in range((datetime.date(2100, 1, 1) - first).days)]
    random.Random(0).shuffle(dates)
    return dates


DAYS, YEARS = map(ordinal, range(1, 32)), map(year_in_words, range(1900, 2100))
WORDS = sorted({*" ".join(["the of", *calendar.day_name, *MONTHS, *DAYS, *YEARS]).lower().split()})
NUMBERS = {word: number for number, word in enumerate(WORDS)}


class Writer(Stage):
    """The figure that was written last, one-hot, to the logits of the next: ``(B, T, 12) -> (B, T, 12)``."""

    def __init__(self, hidden):
        super().__init__()
        self.in_shape = self.out_shape = (len(FIGURES),)
        self.cell, self.map = LSTM((len(FIGURES),), hidden), nn.Linear(hidden, len(FIGURES))

    def initial(self, batch):
        return self.cell.initial(batch)

    def forward(self, x, state):
        y, state = self.cell(x, state)
        return self.map(y), state


class Translator(nn.Module):
    """Words to figures, through the state of a cell."""

    def __init__(self, hidden=128):
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 32)
        self.reader, self.writer = LSTM((32,), hidden), Writer(hidden)
        self.register_buffer("begin", encode(["^"])[:, 0])

    def read(self, texts):
        """The state ``(B, ...)`` after the last word of each text. ValueError for a word that is unknown."""
        rows = [text.lower().split() for text in texts]
        if unknown := {word for row in rows for word in row} - NUMBERS.keys():
            raise ValueError(
                f"unknown words: {', '.join(sorted(unknown))}; expected such as {spell(datetime.date.today(), FORMS[0])!r}"
            )
        lengths = torch.tensor([len(row) for row in rows])
        numbers = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for row, words in zip(numbers, rows):
            row[: len(words)] = torch.tensor([NUMBERS[word] for word in words], dtype=torch.long)
        return ragged(self.reader, self.embedding(numbers), lengths, self.reader.initial(len(rows)))[1]

    def cost(self, texts, figures):
        """Cross-entropy of each figure, all before it being right."""
        target = encode(figures)
        told = torch.cat([self.begin.expand(len(target), 1, -1), target[:, :-1]], 1)
        logits, _ = self.writer(told, self.read(texts))
        return cross_entropy(logits.flatten(0, 1), target.flatten(0, 1).argmax(-1))

    @torch.inference_mode()
    def translate(self, texts):
        """Each text as figures; every figure is told those that were written before."""
        feed = lambda logits: one_hot(logits.argmax(-1), len(FIGURES)).float()  # noqa: E731
        logits, _ = generate(self.writer, self.begin.expand(len(texts), -1), self.read(texts), 10, feed)
        return ["".join(FIGURES[one] for one in row) for row in logits.argmax(-1).tolist()]


def encode(figures):
    """Texts of one length, one-hot ``(B, T, 12)``."""
    return one_hot(torch.tensor([[FIGURES.index(one) for one in text] for text in figures]), len(FIGURES)).float()


def train(steps=1500, held_out=2000, batch=64, seed=0):
    """A translator, and the dates that it has not seen."""
    torch.manual_seed(seed)
    dates, draw = all_dates(), random.Random(seed)
    known, unseen = dates[held_out:], dates[:held_out]
    model = Translator()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in track(range(steps), "training"):
        chosen = draw.sample(known, batch)
        loss = model.cost([spell(date, draw.choice(FORMS)) for date in chosen], [date.isoformat() for date in chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), unseen


def share_right(model, dates, form):
    """How many of the dates are written without a fault."""
    told = model.translate([spell(date, form) for date in dates])
    return sum(one == date.isoformat() for one, date in zip(told, dates)) / len(dates)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    model, unseen = train(given.steps, seed=given.seed)
    print(
        f"{datetime.date.today()}  trained {time.perf_counter() - started:.0f} s, {given.steps} steps, seed {given.seed}"
    )
    for form in FORMS:
        text = spell(unseen[0], form)
        print(
            f"{share_right(model, unseen, form):6.1%} of {len(unseen)} unseen dates right, such as {text!r}: {model.translate([text])[0]}"
        )


if __name__ == "__main__":
    main()
