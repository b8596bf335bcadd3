"""Text from files and models, made harmless: labels and names are hostile, and people read them on terminals."""

import unicodedata

JOINERS = "\u200c\u200d"  # of letters and of emoji: the only characters without a shape that stay
MAX_CHARACTERS = 300  # of a text on a page


def clean(text: str, keep: str = "") -> str:
    r"""Text whose every character can be seen, in one line: others are spelt as in Python, such as ``\n``, ``\x1b`` and
    ``\u202e``, and bytes of file names that are no UTF-8 (surrogate escapes) as ``\xNN``. Those in ``keep`` stay.
    """
    return text if text.isprintable() else "".join(char if char in keep else shown(char) for char in text)


def shorten(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Text without its middle if it is longer than ``limit`` characters: the end of a path says more."""
    head = limit // 3
    return text if len(text) <= limit else f"{text[:head]} … {text[len(text) - limit + head + 3 :]}"


def shown(char: str) -> str:
    """One character of such a text."""
    if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs":
        return char
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char.encode("unicode_escape").decode()
