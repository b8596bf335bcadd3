"""What a sweep may choose from: ranges and choices by key, and values as the command line spells them."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError

DIGITS = 4  # that a number is used and shown with, so that what is printed is what was trained
PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)  # text that needs no quotes
QUOTE, ESCAPED, ENDING = "'", r"\'", r"(\\*)('|$)"  # backslashes count only before a quote
WORDS = ("null", "true", "false", "nan", "inf")
KEYS = ("low", "high", "step", "log", "choices")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included: in steps, or evenly in their logarithm. Whole if ``whole``."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def place(self, value: Any) -> float:
        """Where a value is on an axis, the logarithm if so drawn."""
        return math.log10(value) if self.log else float(value)


@dataclass(frozen=True)
class Choices:
    """Some values, as the command line spells them."""

    texts: tuple[str, ...]

    def place(self, value: Any) -> float:
        """The number of a value among the choices."""
        return float(self.texts.index(value))


Part: TypeAlias = Range | Choices


def parse_space(space: Mapping[str, Any]) -> dict[str, Part]:
    """Ranges and choices by dotted key, from nested settings (``encoder: {hidden: {low: 32, high: 128}}``); null: not
    searched. ConfigError for what is neither.
    """
    return {key: parse_part(key, entry) for key, entry in iterate_leaves(space, "") if entry}


def iterate_leaves(space: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    """What stands at the ends, with dotted keys: a mapping is one if it holds no other."""
    for key, value in space.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            yield from iterate_leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def parse_part(key: str, entry: Any) -> Part:
    """A range or choices, from their settings. ConfigError for anything else."""
    where = f"sweep.space.{key}"
    expected = "expected {low: 0.1, high: 0.5}, if you like with step or log: true, or {choices: [a, b]}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {entry!r}; {expected}")
    for name in entry:
        if name not in KEYS:
            raise ConfigError(f"{where}.{name}: no such key{nearest(str(name), list(KEYS))}")
    if "choices" in entry:
        choices = entry["choices"]
        texts = tuple(dict.fromkeys(map(quote, choices))) if isinstance(choices, Sequence) else ()
        if len(texts) < 2 or len(entry) > 1 or isinstance(choices, str):
            raise ConfigError(f"{where}: got {dict(entry)!r}; expected two choices or more, and nothing beside them")
        return Choices(texts)
    low, high, step, log = (entry.get(name) for name in KEYS[:4])
    numbers = [value for value in (low, high, step) if value is not None]
    if low is None or high is None or not all(is_number(value) for value in numbers) or log not in (None, True, False):
        raise ConfigError(f"{where}: got {dict(entry)!r}; {expected}")
    if not low < high or (step is not None and step <= 0) or (log and (low <= 0 or step is not None)):
        rule = "low must be below high, step positive; with log, low must be positive and step not set"
        raise ConfigError(f"{where}: got {dict(entry)!r}; {rule}")
    return Range(low, high, step, bool(log), all(isinstance(value, int) for value in numbers))


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def round_value(value: Any) -> Any:
    """A drawn value, numbers rounded to ``DIGITS`` significant digits."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def to_override(key: str, value: Any) -> str:
    """A drawn value as an argument of the command line."""
    return f"{key}={value if isinstance(value, str) else quote(round_value(value))}"


def quote(value: Any) -> str:
    """A value as it is written on the command line (the grammar of Hydra's overrides)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quote(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(quote, value)) + "]"
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and value.lower() not in WORDS):
        return f"'{re.sub(ENDING, lambda found: 2 * found[1] + found[2].replace(QUOTE, ESCAPED), value)}'"
    return str(value)


def keys_of(overrides: Sequence[str]) -> set[str]:
    """The keys that arguments of a command line set."""
    return {re.split("[=@]", text.lstrip("+~"), maxsplit=1)[0] for text in overrides}
