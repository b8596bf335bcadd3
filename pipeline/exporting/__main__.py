"""``python -m pipeline.exporting RUN [FOLDER]``: a trained model as ONNX graphs, which are computed without torch."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from pipeline.core.errors import ConfigError
from pipeline.core.program import guard, print_warnings
from pipeline.exporting.browser import write_page
from pipeline.exporting.check import check, test_clips
from pipeline.exporting.export import export
from pipeline.exporting.package import write_package
from pipeline.exporting.triton import write_triton
from pipeline.exporting.weights import Weights
from pipeline.model.classifier import load
from pipeline.model.file import model_file
from pipeline.model.onnx_model import OnnxModel


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
    parser.add_argument(
        "--weights", choices=get_args(Weights), default="fp32", help="smaller files for elsewhere: fp16, int8"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the labels of the run's test clips, which are files"
    )
    parser.add_argument("--triton", action="store_true", help="write FOLDER/triton/, which NVIDIA's Triton serves")
    parser.add_argument(
        "--page",
        nargs="?",
        const="",
        metavar="NODE_MODULES",
        help="write FOLDER/browser/, a page that hears the microphone; onnxruntime-web is taken from the given "
        "node_modules folder, or installed into a cache by npm",
    )
    given = parser.parse_args(arguments)

    def run() -> int:
        path = model_file(given.run)
        folder = Path(given.folder) if given.folder else path.parent
        away = folder.resolve() != path.parent.resolve()
        if not away and (given.weights != "fp32" or given.triton or given.page is not None):
            raise ConfigError("--weights, --triton and --page are for elsewhere: give a FOLDER that is not the run's")
        model = load(path)
        if given.page is not None:
            model.spec.require_sound("--page")
        graphs = export(model, folder, given.block, given.weights, start=away)
        files = graphs + (write_package(folder) if away else [])
        files += write_triton(folder) if given.triton else []
        if given.page is not None:
            files += write_page(folder, Path(given.page) if given.page else None)
        for written in files:
            print(f"{written}  {written.stat().st_size:,} bytes")
        if given.check:
            print(check(model, OnnxModel(graphs[-1]), test_clips(path.parent)))
        return 0

    print_warnings()
    return guard(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
