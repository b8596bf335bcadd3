"""Text from files and models, made harmless: labels and names are hostile, and people read them on terminals."""

import unicodedata

JOINERS = "\u200c\u200d"  # of letters and of emoji: the only characters without a shape that stay


def clean(text: str, keep: str = "") -> str:
    r"""Text whose every character can be seen, in one line: others are spelt as in Python, such as ``\n``, ``\x1b`` and
    ``\u202e``, and bytes of file names that are no UTF-8 (surrogate escapes) as ``\xNN``. Those in ``keep`` stay.
    """
    return text if text.isprintable() else "".join(char if char in keep else shown(char) for char in text)


def shown(char: str) -> str:
    """One character of such a text."""
    if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs":
        return char
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char.encode("unicode_escape").decode()
