"""Tables on the terminal. What files have put into them cannot control it."""

from collections.abc import Iterable, Sequence

from rich.box import HEAVY_HEAD, Box
from rich.table import Table
from rich.text import Text

from pipeline.core.text import clean

WORDS = "class", "run", "runs", "settings", "most often taken for"  # columns of words; all others are numbers


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], box: Box = HEAVY_HEAD) -> Table:
    padding = (0, 1) if box is HEAVY_HEAD else (0, 1, 0, 0)
    table = Table(title=Text(clean(title)), title_justify="left", box=box, padding=padding)
    for column in columns:
        words = column in WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in rows:
        table.add_row(*(Text(clean(text)) for text in row))
    return table
