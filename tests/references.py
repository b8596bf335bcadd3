"""Our cells as single nodes of ONNX Runtime, and over images as small graphs, for tests and benchmarks."""

import re

import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from pipeline.cells.layouts import to_onnx

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
