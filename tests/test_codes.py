"""docs/codes.md names each code that the product gives, and no other."""

import ast
import re

from conftest import ROOT

from conf import launch
from pipeline.core import errors, interrupt
from pipeline.streaming import guard

PAGE = (ROOT / "docs" / "codes.md").read_text()
TELLERS = "MediaError", "warn", "error_message"
FILES = {path: path.read_text() for path in (ROOT / "pipeline").rglob("*.py")}


def given():
    """The words that stand as codes in calls of MediaError and ``warn``."""
    for text in FILES.values():
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.args):
            if (getattr(call.func, "id", "") or getattr(call.func, "attr", "")) in TELLERS:
                code = call.args[0]
                choices = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
                words = [one.value for one in choices if isinstance(one, ast.Constant)]
                yield from (word for word in words if re.fullmatch("[a-z_]+", word))


def test_each_code_is_named():
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert set(given()) | set(guard.TEXTS) <= named


def test_each_named_code_is_given():
    everything = "\n".join(FILES.values())
    cells = [cell for row in re.findall(r"^\| (`.*?`) \|", PAGE, re.M) for cell in re.findall(r"`(\w+)`", row)]
    assert len(cells) > 40 and not [code for code in cells if f'"{code}"' not in everything]


def test_exit_codes():
    codes = {launch.OK, errors.FAILED, errors.USAGE, launch.SOME_ROWS, errors.UNWRITABLE, interrupt.INTERRUPTED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)} == codes | {launch.TERMINATED}
