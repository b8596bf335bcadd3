"""Settings of an earlier run compared with those of this one."""

from collections.abc import Mapping
from typing import Any


def differences(there: Any, here: Any, at: str = "") -> str:
    """In which keys two nested settings differ, as words: 'encoder.hidden was 12, is 14'; '' if in none."""
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return "" if there == here else f"{at} was {there!r}, is {here!r}"
    parts = (differences(there.get(key), here.get(key), f"{at}.{key}".lstrip(".")) for key in {**there, **here})
    return ", ".join(filter(None, parts))
