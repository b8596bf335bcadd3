"""Sizes and ages as people write them: 2GB, 30d."""

import re
from collections.abc import Mapping

SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}  # bytes
AGES = {"min": 60, "h": 3600, "d": 86400, "w": 604800}  # seconds


def read_quantity(text: str, units: Mapping[str, int]) -> float | None:
    """A positive number with one of the units; None if it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    return float(match[1]) * units[match[2]] or None if match and match[2] in units else None
