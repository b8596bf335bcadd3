"""``python -m pipeline.exporting RUN [FOLDER]``: a trained model as ONNX graphs, which are computed without torch."""

import argparse
import sys
from pathlib import Path

from pipeline.core.program import guard, print_warnings


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.exporting", description=__doc__)
    parser.add_argument("run", help="a run's folder, or its model.safetensors")
    parser.add_argument(
        "folder",
        nargs="?",
        help="where they go, with all that runs them elsewhere; by default beside the weights, for infer.py",
    )
    parser.add_argument("--block", type=float, default=0.1, help="seconds that are computed at a time (default 0.1)")
    given = parser.parse_args(arguments)

    def run() -> int:
        from pipeline.exporting.export import export
        from pipeline.exporting.package import write_package
        from pipeline.model.classifier import load
        from pipeline.model.file import model_file

        path = model_file(given.run)
        folder = Path(given.folder) if given.folder else path.parent
        files = export(load(path), folder, given.block)
        if folder.resolve() != path.parent.resolve():
            files += write_package(folder)
        for written in files:
            print(f"{written}  {written.stat().st_size:,} bytes")
        return 0

    print_warnings()
    return guard(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
