"""A page that hears the microphone and shows events: ``browser/``, plain files that any web server serves.

    python -m http.server --bind 127.0.0.1 -d OUT/browser

Nothing comes from other hosts: onnxruntime-web is copied from a ``node_modules`` folder, into which npm puts it once.
"""

import shutil
import subprocess
from pathlib import Path

from pipeline.core.errors import ConfigError
from pipeline.model.file import GRAPH

PAGE = Path(__file__).with_name("page")
RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
PACKAGE = "onnxruntime-web@1.30.0"
CACHE = Path.home() / ".cache" / "rivulet" / "npm"


def write_page(folder: Path, modules: Path | None = None) -> list[Path]:
    """Write ``browser/`` for the graph and the card in ``folder``. ``modules``: a ``node_modules`` with
    onnxruntime-web; None for our own. ConfigError if it cannot be had.
    """
    runtime = (modules or installed()) / "onnxruntime-web" / "dist"
    sources = [*PAGE.iterdir(), *(runtime / name for name in RUNTIME), folder / GRAPH, folder / "model.json"]
    for source in sources:
        if not source.is_file():
            raise ConfigError(f"--page: {source}: no such file; give a node_modules folder with {PACKAGE}")
    page = folder / "browser"
    page.mkdir(exist_ok=True)
    return [Path(shutil.copy(source, page)) for source in sources]


def installed() -> Path:
    """Our own ``node_modules``, filled by npm if it is not there yet."""
    modules = CACHE / "node_modules"
    if not (modules / "onnxruntime-web").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(CACHE), "--ignore-scripts", PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"--page needs {PACKAGE}, and `{' '.join(command)}` failed ({error}); install it elsewhere, and give "
                "its folder: --page node_modules"
            ) from None
    return modules
