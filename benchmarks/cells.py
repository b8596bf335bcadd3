"""Every dense cell against torch.nn, ONNX Runtime and a naive loop: one step, whole sequences, a training step.

    python benchmarks/cells.py [--hidden 64 128 256 512] [--quick]

One thread; x is as wide as the memory; medians of runs that take turns, because
machines are noisy; for steps a turn is twenty calls, as a stream makes them. The naive loop is the
equations as one would type them: nn.LSTMCell and its like in a Python loop, or two `linear` per step. A dash: no such
layer. `/nn.LSTM` compares with torch's LSTM, also for the cells that torch does not have.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from references import OPERATORS, onnx_session
from table import report
from torch.nn.functional import linear

from pipeline.cells.elman import Elman
from pipeline.cells.gru import GRU, GRUResetBefore
from pipeline.cells.jordan import Jordan
from pipeline.cells.lstm import LSTM, CoupledLSTM
from pipeline.cells.mgu import MGU
from pipeline.cells.min_gru import MinGRU

CELLS = {  # our cell, torch's layer, torch's cell
    "elman": (Elman, {}, torch.nn.RNN, torch.nn.RNNCell),
    "jordan": (Jordan, {}, None, None),
    "lstm": (LSTM, {}, torch.nn.LSTM, torch.nn.LSTMCell),
    "peephole_lstm": (LSTM, {"peephole": True}, None, None),
    "coupled_lstm": (CoupledLSTM, {}, None, None),
    "gru": (GRU, {}, torch.nn.GRU, torch.nn.GRUCell),
    "gru_reset_before": (GRUResetBefore, {}, None, None),
    "mgu": (MGU, {}, None, None),
    "min_gru": (MinGRU, {}, None, None),
}
TASKS = {
    "step, batch 1": (1, 1),
    "step, batch 64": (64, 1),
    "sequence, batch 16": (16, 100),
    "training, batch 16": (16, 100),
}


def naive(name, cell):
    """One time step as one would type it, (x, *memory) -> memory, after the module that holds its weights."""
    w, u, b, c = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    s, tanh, hidden = torch.sigmoid, torch.tanh, cell.hidden

    def jordan(x, y):
        h = tanh(linear(x, w, b) + linear(y, u[:hidden], c[:hidden]))
        return (tanh(linear(h, u[hidden:], c[hidden:])),)

    def peephole_lstm(x, h, m):
        i, f, g, o = (linear(x, w, b) + linear(h, u, c)).chunk(4, 1)
        p = cell.weight_ch
        i, f = s(i + p[0] * m), s(f + p[1] * m)
        m = f * m + i * tanh(g)
        return s(o + p[2] * m) * tanh(m), m

    def coupled_lstm(x, h, m):
        f, g, o = (linear(x, w, b) + linear(h, u, c)).chunk(3, 1)
        f = s(f)
        m = f * m + (1 - f) * tanh(g)
        return s(o) * tanh(m), m

    def gru_reset_before(x, h):
        xr, xz, xn = linear(x, w, b).chunk(3, 1)
        hr, hz = linear(h, u[: 2 * hidden], c[: 2 * hidden]).chunk(2, 1)
        r, z = s(xr + hr), s(xz + hz)
        n = tanh(xn + linear(r * h, u[2 * hidden :], c[2 * hidden :]))
        return ((1 - z) * n + z * h,)

    def mgu(x, h):
        xf, xn = linear(x, w, b).chunk(2, 1)
        f = s(xf + linear(h, u[:hidden], c[:hidden]))
        return ((1 - f) * h + f * tanh(xn + linear(f * h, u[hidden:], c[hidden:])),)

    def min_gru(x, h):
        z, n = linear(x, w, b).chunk(2, 1)
        z = s(z)
        return ((1 - z) * h + z * n,)

    if name in locals():
        return cell, locals()[name]
    theirs = CELLS[name][3](cell.in_shape[0], hidden)  # torch's own cell in a Python loop
    return theirs, lambda x, *m: theirs(x, tuple(m)) if len(m) > 1 else (theirs(x, m[0]),)


def loop(step, x, memory):
    ys = []
    for t in range(x.shape[1]):
        memory = step(x[:, t], *memory)
        ys.append(memory[0])
    return torch.stack(ys, 1)


def candidates(name, task, hidden):
    kind, options, layer, single = CELLS[name]
    rows, steps = TASKS[task]
    torch.manual_seed(0)
    cell = kind((hidden,), hidden, **options)
    x = torch.randn(rows, steps, hidden)
    memory = [torch.zeros(rows, hidden) for _ in cell.memory]
    state = tuple(memory) if len(memory) > 1 else memory[0]
    learning = task.startswith("training")

    def run(parameters, forward):
        def call():
            with torch.inference_mode(not learning):
                y = forward()
            if learning:
                for parameter in parameters:
                    parameter.grad = None
                y.sum().backward()

        return call

    def torch_layer(net):
        net = net(hidden, hidden, batch_first=True)
        return run(list(net.parameters()), lambda: net(x)[0])

    found = {"ours": run(list(cell.parameters()), lambda: cell(x, state)[0])}
    if steps == 1 and single:
        net = single(hidden, hidden)
        found["torch.nn"] = run([], lambda: net(x[:, 0], state))
    elif layer:
        found["torch.nn"] = torch_layer(layer)
    if name in OPERATORS and not learning:
        session, feed = onnx_session(cell, name)
        given = feed(x, memory)
        found["ONNX Runtime"] = lambda: session.run(None, given)
    module, step = naive(name, cell)
    found["naive"] = run(list(module.parameters()), lambda: loop(step, x, memory))
    if steps > 1:
        found["nn.LSTM"] = torch_layer(torch.nn.LSTM)
    return found


def measure(calls, budget, turn):
    """Seconds of each, medians of runs that take turns; a turn is so many calls, as a stream makes them."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call(), call()
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times["ours"]) < 7:
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(turn):
                call()
            times[name].append((time.perf_counter() - begin) / turn)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers, rows = ("torch.nn", "ONNX Runtime", "naive", "nn.LSTM"), []
    for task in TASKS:
        for hidden in options.hidden:
            for name in CELLS:
                seconds = measure(
                    candidates(name, task, hidden), 0.1 if options.quick else 1.0, 20 if task.startswith("step") else 1
                )
                ours = seconds["ours"]
                unit, scale = ("us", 1e6) if task.startswith("step") else ("ms", 1e3)
                cells = [f"{seconds[p] * scale:.1f}" if p in seconds else "-" for p in ("ours", *peers[:3])]
                ratios = [f"{ours / seconds[p]:.2f}" if p in seconds else "-" for p in peers]
                rows.append([task, hidden, name, *cells, unit, *ratios])
    columns = ["task", "hidden", "cell", "ours", *peers[:3], "", *(f"/{peer}" for peer in peers)]
    report(
        "cells",
        columns,
        rows,
        "time, and ours divided by each peer's (below 1: ours is faster); torch.set_num_threads(1)",
    )


if __name__ == "__main__":
    main()
