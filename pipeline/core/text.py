"""Text from files and models, made harmless: labels and names are hostile, and people read them on terminals."""

import hashlib
import unicodedata

JOINERS = "\u200c\u200d"  # of letters and of emoji: the only characters without a shape that stay
MAX_CHARACTERS = 300  # of a text on a page
NAME_BYTES = 60  # of a text in a name


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
    """A visible character unchanged; any other as ``clean`` spells it."""
    if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs":
        return char
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char.encode("unicode_escape").decode()


def slug(text: str, source: str | None = None, only_ascii: bool = False) -> str:
    """Text as a part of names, of files or topics: letters, digits, ``-`` and ``_``. Where that changes it, or with a
    ``source``, six hex digits of what it was, or of the source, keep names apart.
    """
    whole = unicodedata.normalize("NFC", text)
    kept = (char if is_plain(char) and (char.isascii() or not only_ascii) else "_" for char in whole)
    short = "".join(kept).encode()[:NAME_BYTES].decode(errors="ignore")
    if short == whole != "" and source is None:
        return short
    origin = (source or whole).encode("utf-8", "surrogatepass")
    return f"{short}-{hashlib.blake2b(origin, digest_size=3).hexdigest()}"


def is_plain(char: str) -> bool:
    """Whether a character is a letter (or a mark on one), a digit, a dash or an underscore."""
    return char in "-_" or unicodedata.category(char)[0] in "LMN"
