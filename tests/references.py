"""Our cells as single nodes of ONNX Runtime, for tests and benchmarks."""

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pipeline.layouts import to_onnx

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
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])

    def feed(x, memory):
        given = {n: m[None].numpy() for n, m in zip(states, memory)}
        return {"X": x.transpose(0, 1).contiguous().numpy()} | given

    return session, feed
