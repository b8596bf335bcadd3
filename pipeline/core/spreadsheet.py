"""Cells of csv files that a spreadsheet would run as formulas."""

import re

# An apostrophe at the start makes a cell text. One goes before what begins with = or @, and before what begins with
# + or - and has more in it than a name or a number has. A cell that has apostrophes before that gets one more.
FORMULA = re.compile(r"'*\s*(?:[=@＝＠]|[+\-＋－](?![\w .+\-/]*\Z))")


def protect(cell: str) -> str:
    """The cell, as text for spreadsheets too: names such as ``-take.wav`` and ``+1`` stay as they are."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def unprotect(cell: str) -> str:
    """The inverse of ``protect``."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
