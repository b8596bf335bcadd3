"""A network in an ONNX file, run by ONNX Runtime: what it takes and gives, and one call of it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution, version
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError

KEY = "extractor.path"
MAX_BYTES = 512 << 20  # of a file
TYPES = {
    "float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8", "int32": "int32", "int64": "int64"
}  # fmt: skip

Array = NDArray[Any]


def locate(path: str, origin: str = "") -> tuple[Path, str]:
    """A file, or one in a package, ``PACKAGE:FILE``, relative to where packages lie; and ``PACKAGE==VERSION``, or "".

    ConfigError if it is not there, or too large; it names the package's ``origin``, if that is known.
    """
    package, colon, name = path.partition(":")
    place, found = Path(path).expanduser(), ""
    if colon and not place.exists():
        try:
            place, found = Path(str(distribution(package).locate_file(name))), f"{package}=={version(package)}"
        except PackageNotFoundError:
            install = f"pip install {origin or package}"
            raise ConfigError(f"{KEY}: the package {package!r} is not installed: {install}") from None
    if not place.is_file():
        raise ConfigError(f"{KEY}: there is no file {place}; expected an ONNX file, or PACKAGE:FILE")
    if place.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{KEY}: {place} has {place.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}")
    return place, found


class Network:
    """The network whose file is ``content``. A copy or a child process opens it again."""

    def __init__(self, content: bytes, name: str) -> None:
        """``name`` stands in errors."""
        self.content, self.name = content, name
        self.sha256 = hashlib.sha256(content).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "session"}

    @cached_property
    def session(self) -> Any:
        """ConfigError for what is no network, for one whose numbers lie in other files, and for operators that ONNX
        Runtime lacks. One thread, so that sums are added up in one order.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError("extractor=onnx needs ONNX Runtime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class of its own for each reason
            raise ConfigError(f"{KEY}: {self.name} is refused: {str(error).splitlines()[0]:.400}") from None

    def inputs(self) -> dict[str, Any]:
        """By name."""
        return {one.name: one for one in self.session.get_inputs()}

    def run(self, outputs: Sequence[str], given: Mapping[str, Array]) -> list[Array]:
        """One call; inputs are brought to the types that the network takes. ConfigError for a call that fails."""
        typed = {name: given[name].astype(type_of(one)) for name, one in self.inputs().items()}
        try:
            found: list[Array] = self.session.run(outputs, typed)
        except Exception as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in typed.items())
            raise ConfigError(f"{KEY}: {self.name} fails with {shapes}: {str(error).splitlines()[0]:.400}") from None
        return found

    def output(self, name: str | None) -> str:
        """The output of this name; None: the first. ConfigError if there is none."""
        known = [one.name for one in self.session.get_outputs()]
        if name is not None and name not in known:
            raise ConfigError(f"extractor.output: {self.name} has no {name!r}{nearest(name, known)}")
        return name or str(known[0])


def type_of(declared: Any) -> Any:
    """The type of an input; ConfigError for one that holds no plain numbers."""
    name = declared.type.removeprefix("tensor(").removesuffix(")")
    if name not in TYPES:
        raise ConfigError(
            f"{KEY}: the input {declared.name!r} is a {declared.type}; expected one of {', '.join(TYPES)}"
        )
    return TYPES[name]


def fit(shape: tuple[int, ...], declared: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """How an array of ``shape`` becomes an input: the order of its axes, and the shape then, with axes of 1 between.
    None if it does not. Time and channels stay in order if both ways fit, and axes of 1 come first.
    """
    for order in permutations(range(len(shape))):
        for places in reversed([*combinations(range(len(declared)), len(shape))]):
            target = [1] * len(declared)
            for place, axis in zip(places, order, strict=True):
                target[place] = shape[axis]
            if all(size == own or not isinstance(size, int) for size, own in zip(declared, target, strict=True)):
                return order, tuple(target)
    return None


def zeros(declared: Any, axis: int) -> Array:
    """What a memory begins with, for one row at ``axis``; ConfigError if the network does not say its size."""
    shape = [1 if number == axis else size for number, size in enumerate(declared.shape)]
    if not -1 < axis < len(shape) or not all(isinstance(size, int) for size in shape):
        raise ConfigError(
            f"extractor.states: {declared.name!r} has the shape {declared.shape}; expected sizes but for that of the "
            f"batch, at axis {axis}"
        )
    return np.zeros(shape, type_of(declared))
