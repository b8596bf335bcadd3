"""Pages for people: one HTML file each, from the templates, that needs no script, no network and no other file.

Jinja2 escapes all values, so a label or a file name is only ever text. Before that, ``clean`` spells out characters
that cannot be seen. Colours follow the reader's light or dark mode.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core.text import clean, shorten

MAX_ROWS = 100  # of a table


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (shorten, format_share, format_percent, format_duration, format_amount, format_count, format_fixed)
    made.filters |= {one.__name__.removeprefix("format_"): one for one in filters}
    made.globals |= {"MAX_ROWS": MAX_ROWS}
    return made


def render(template: str, **values: Any) -> str:
    """The text of a page from ``templates/``, which also gets the time as ``now``."""
    return environment().get_template(template).render(values, now=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}")


def format_share(part: float, whole: float = 1.0) -> str:
    """A part of a whole in per cent."""
    return f"{100 * part / whole:.1f}\u00a0%" if whole else "–"


def format_percent(share: float) -> str:
    """A share in whole per cent, for an axis."""
    return f"{100 * share:.0f}\u00a0%"


def format_number(number: float, style: str = "g", space: str = "") -> str:
    """A number for an axis: 0.25, 20, 1.5k, 3M."""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    size, unit = next((pair for pair in units if abs(number) >= pair[0]), (1, ""))
    return f"{number / size:{style}}{space if unit else ''}{unit}"


def format_amount(number: float) -> str:
    """A large number to three digits: 12.3 M."""
    return format_number(number, ".3g", "\u00a0")


def format_duration(seconds: float) -> str:
    """A time in hours, minutes or seconds, to two digits or to the unit."""
    size, unit = next((pair for pair in ((3600, "h"), (60, "min")) if seconds >= pair[0]), (1, "s"))
    value = seconds / size
    return f"{value:,.0f}\u00a0{unit}" if value >= 10 else f"{value:.2g}\u00a0{unit}"


def format_count(number: int) -> str:
    """A whole number with commas between thousands."""
    return f"{number:,}"


def format_fixed(number: float, digits: int) -> str:
    """A number with so many digits behind the point."""
    return f"{number:,.{digits}f}"
