"""Nested settings by dotted keys, and those of an earlier run compared with those of this one."""

from collections.abc import Mapping
from typing import Any


def dotted(settings: Any, at: str = "") -> dict[str, Any]:
    """What stands at the ends of nested settings, by dotted keys. An empty mapping is an end, too."""
    if not isinstance(settings, Mapping) or (not settings and at):
        return {at: settings}
    parts = (dotted(one, f"{at}.{name}" if at else str(name)) for name, one in settings.items())
    return {key: value for part in parts for key, value in part.items()}


def differences(there: Any, here: Any, at: str = "") -> str:
    """In which keys two nested settings differ, as words: 'encoder.hidden was 12, is 14'; '' if in none."""
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return "" if there == here else f"{at} was {there!r}, is {here!r}"
    parts = (differences(there.get(key), here.get(key), f"{at}.{key}".lstrip(".")) for key in {**there, **here})
    return ", ".join(filter(None, parts))
