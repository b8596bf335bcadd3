"""Check that this is the Python of `.venv`, before other imports: a wrong one gets one line instead of a traceback."""

import sys
from importlib.util import find_spec


def check() -> None:
    """End the program (exit code 2) if this Python is too old, or lacks what `make setup` installs."""
    if sys.version_info < (3, 11) or not (find_spec("hydra") and find_spec("pydantic")):
        have = f"{sys.executable} (Python {sys.version_info.major}.{sys.version_info.minor}) lacks packages of Rivulet"
        hint = "run `make setup` once, then `source .venv/bin/activate` in each terminal"
        print(f"error: {have}; {hint}", file=sys.stderr)
        sys.exit(2)
