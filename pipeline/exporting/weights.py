"""Smaller files: a graph's weights in 16 or 8 bits, which a runtime turns back into float32 when it loads them.

So a step takes as long as before, and only the file is smaller. ``int8``: rows of whole numbers, each with a scale,
through Cast and Mul: runtimes compute these once, at load, unlike DequantizeLinear. What the front end computes with
(filters, transforms) stays in float32: it is not learnt, and rounded it would be a floor of noise under quiet sounds.
"""

import json
from collections.abc import Set
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.model.onnx_model import KEY, SEAL_BYTES, seal

Weights: TypeAlias = Literal["fp32", "fp16", "int8"]
FEWEST = 256  # numbers of an array that is worth it
TOLERANCES = {"fp16": 5e-3, "int8": 0.1}  # of a posterior, against torch


def with_weights(graph: bytes, weights: Weights, exact: Set[str]) -> bytes:
    """A graph of float32 with other ``weights``, but for the arrays named ``exact``. Its card says so."""
    import onnx

    model = onnx.load_model_from_string(graph[:-SEAL_BYTES])
    first, kept = [], []
    for array in model.graph.initializer:
        values = onnx.numpy_helper.to_array(array)
        small = values.dtype != np.float32 or values.ndim < 2 or values.size < FEWEST
        if small or array.name in exact or array.name.startswith("first_") or "lifted_tensor" in array.name:
            kept.append(array)
            continue
        parts, nodes = packed(array.name, values, weights)
        kept += [onnx.numpy_helper.from_array(part, name) for name, part in parts.items()]
        first += [onnx.helper.make_node(kind, inputs, [output], **more) for kind, inputs, output, more in nodes]
    nodes = [*first, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    for entry in model.metadata_props:
        if entry.key == KEY:
            card = json.loads(entry.value)
            for name in "identity", "weights":
                card[name] += f"-{weights}"  # its answers are others
            card["golden"] = []
            entry.value = json.dumps(card)
    return seal(model.SerializeToString())


def packed(name: str, values: NDArray[np.float32], weights: Weights) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """The arrays that stand for ``values``, and the nodes ``(operator, inputs, output, attributes)`` that make them."""
    to_float = {"to": 1}
    if weights == "fp16":
        return {f"{name}_fp16": values.astype(np.float16)}, [("Cast", [f"{name}_fp16"], name, to_float)]
    scale = np.maximum(np.abs(values).max(-1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
    whole = np.round(values / scale).astype(np.int8)
    cast = "Cast", [f"{name}_int8"], f"{name}_float", to_float
    return {f"{name}_int8": whole, f"{name}_scale": scale}, [
        cast,
        ("Mul", [f"{name}_float", f"{name}_scale"], name, {}),
    ]
