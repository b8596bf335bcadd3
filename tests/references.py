"""Our cells as single nodes of ONNX Runtime, and over images as small graphs, for tests and benchmarks."""

import re

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from pipeline.cells.layouts import to_onnx
from pipeline.extractors.speech import LAYERS

OPERATORS = {
    "elman": ("RNN", {}),
    "lstm": ("LSTM", {}),
    "peephole_lstm": ("LSTM", {}),
    "coupled_lstm": ("LSTM", {"input_forget": 1}),
    "coupled_peephole_lstm": ("LSTM", {"input_forget": 1}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "gru_reset_before": ("GRU", {"linear_before_reset": 0}),
    "gru_without_bias": ("GRU", {"linear_before_reset": 1}),
}


def onnx_session(cell, name, threads=1):
    """A session with inputs X (T, B, F) and the memory, each (1, B, hidden), and outputs Y (T, 1, B, hidden) and the
    memory; and a function that makes the inputs of ``x (B, T, F)`` and a list of tensors.
    """
    kind, attributes = OPERATORS[name]
    weights, states = to_onnx(cell), ["h0", "c0"][: len(cell.memory)]
    inputs = ["X", "W", "R", "B", "", *states, *(["P"] if "P" in weights else [])]
    outputs = ["Y", "Yh", "Yc"][: 1 + len(states)]
    node = helper.make_node(kind, inputs, outputs, hidden_size=cell.hidden, **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ["X", *states]]
    found = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(
        [node], "cell", values, found, [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = session_of(model, threads)

    def feed(x, memory):
        given = {n: m[None].numpy() for n, m in zip(states, memory)}
        return {"X": x.transpose(0, 1).contiguous().numpy()} | given

    return session, feed


def session_of(model, threads=1):
    """A model in ONNX Runtime on the CPU."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


CONV = "Conv <pads = [1, 1, 1, 1]>"
IMAGES = {  # one step with kernels of 3, for our classes; W b: of x and h together, Wx bx and Wh bh: of each alone
    "ConvElman": f"xh = Concat <axis = 1> (x, h)  u = {CONV} (xh, W, b)  h1 = Tanh (u)",
    "ConvLSTM": f"""
        xh = Concat <axis = 1> (x, h)  u = {CONV} (xh, W, b)
        ui, uf, ug, uo = Split <axis = 1, num_outputs = 4> (u)
        i = Sigmoid (ui)  f = Sigmoid (uf)  g = Tanh (ug)  o = Sigmoid (uo)
        kept = Mul (f, c)  new = Mul (i, g)  c1 = Add (kept, new)  shown = Tanh (c1)  h1 = Mul (o, shown)""",
    "ConvGRU": f"""
        u = {CONV} (x, Wx, bx)  v = {CONV} (h, Wh, bh)
        ur, uz, un = Split <axis = 1, num_outputs = 3> (u)  vr, vz, vn = Split <axis = 1, num_outputs = 3> (v)
        sr = Add (ur, vr)  r = Sigmoid (sr)  sz = Add (uz, vz)  z = Sigmoid (sz)
        rv = Mul (r, vn)  sn = Add (un, rv)  n = Tanh (sn)
        d = Sub (h, n)  zd = Mul (z, d)  h1 = Add (n, zd)""",
    "ConvGRUResetBefore": f"""
        u = {CONV} (x, Wx, bx)  v = {CONV} (h, Wg, bg)
        ur, uz, un = Split <axis = 1, num_outputs = 3> (u)  vr, vz = Split <axis = 1, num_outputs = 2> (v)
        sr = Add (ur, vr)  r = Sigmoid (sr)  sz = Add (uz, vz)  z = Sigmoid (sz)
        rh = Mul (r, h)  vn = {CONV} (rh, Wn, bn)  sn = Add (un, vn)  n = Tanh (sn)
        d = Sub (h, n)  zd = Mul (z, d)  h1 = Add (n, zd)""",
}


def image_session(cell):
    """A function of arrays: an image ``(B, C, H, W)`` and the memory to the new memory."""
    body, states = IMAGES[type(cell).__name__], ["h", "c"][: len(cell.memory)]
    wx, wh, bx, bh = (w.detach() for w in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))
    two = 2 * cell.hidden
    known = {"W": torch.cat([wx, wh], 1), "b": bx + bh} if wx.shape[0] == wh.shape[0] else {}
    known |= {"Wx": wx, "bx": bx, "Wh": wh, "bh": bh, "Wg": wh[:two], "bg": bh[:two], "Wn": wh[two:], "bn": bh[two:]}
    names = [f"float[N, {name}_channels, H, W] {name}" for name in ("x", *states, *(f"{s}1" for s in states))]
    given, found = ", ".join(names[: 1 + len(states)]), ", ".join(names[1 + len(states) :])
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> step ({given}) => ({found}) {{ {body} }}')
    used = known.keys() & set(re.findall(r"\w+", body))
    model.graph.initializer.extend(numpy_helper.from_array(known[name].contiguous().numpy(), name) for name in used)
    session = session_of(model)
    return lambda *arrays: session.run(None, dict(zip(["x", *states], arrays)))


def write_speech_network(path):
    """A file like the package's, with random weights: windows (N, 76, 32, 1) to (N, 1, 1, 96)."""
    rng, nodes, weights, before, channels = np.random.default_rng(0), [], [], "x", 1
    nodes.append(helper.make_node("Transpose", ["input"], ["x"], perm=[0, 3, 1, 2]))
    weights.append(numpy_helper.from_array(np.full((1, 1, 1, 1), -0.4, np.float32), "least"))
    for number, (size, (frames, bands), pool) in enumerate(LAYERS):
        shape, last = (size, channels, frames, bands), number == len(LAYERS) - 1
        made = [rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape), rng.normal(0, 0.1, size)][: 1 if last else 2]
        names = [f"w{number}", f"b{number}"][: len(made)]
        weights += [numpy_helper.from_array(one.astype(np.float32), name) for one, name in zip(made, names)]
        pads = [0, bands // 2, 0, bands // 2]
        nodes.append(
            helper.make_node("Conv", [before, *names], [f"c{number}"], kernel_shape=[frames, bands], pads=pads)
        )
        before, channels = f"c{number}", size
        if not last:
            nodes.append(helper.make_node("LeakyRelu", [before], [f"l{number}"], alpha=0.2))
            nodes.append(helper.make_node("Max", [f"l{number}", "least"], [f"m{number}"]))
            before = f"m{number}"
        if pool != (1, 1):
            nodes.append(helper.make_node("MaxPool", [before], [f"p{number}"], kernel_shape=pool, strides=pool))
            before = f"p{number}"
    nodes.append(helper.make_node("Transpose", [before], ["y"], perm=[0, 2, 3, 1]))
    tensors = [helper.make_tensor_value_info(n, 1, s) for n, s in (("input", ["n", 76, 32, 1]), ("y", ["n", 1, 1, 96]))]
    graph = helper.make_graph(nodes, "speech", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
