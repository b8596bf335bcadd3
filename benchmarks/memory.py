"""How far back can a cell remember? The adding problem and the delayed copy, and the gradient that must reach so far.

    python benchmarks/memory.py [--cells gru lstm] [--steps 500] [--lengths 10 30 100 300] [--parallel 2]

* Adding (Hochreiter & Schmidhuber 1997, experiment 4): x(t) is a random number in [0, 1] and a mark; two numbers are
  marked, one in each half, and the answer after T steps is their sum. Accuracy: share of answers within 0.1.
* Delayed copy (after their experiments; Arjovsky et al. 2016): four of eight symbols, then T blank steps, then the
  four symbols are asked for. Accuracy: share of symbols; guessing gives 1/8.

Every cell gets the same number of training steps (fewer for long sequences), so that short budgets show the difference
between cells, not their limit. Gradients:
|d loss / d h(t)| for the adding problem's answer at T = 200, of untrained cells and of those trained at the greatest
length up to 100.

Draws docs/memory_accuracy.png and docs/memory_gradient.png, and keeps the table under benchmarks/results/.
"""

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib
import torch
from table import report
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from pipeline.cells.elman import Elman
from pipeline.cells.gru import GRU, GRUResetBefore
from pipeline.cells.jordan import Jordan
from pipeline.cells.lstm import LSTM, CoupledLSTM
from pipeline.cells.mgu import MGU
from pipeline.cells.min_gru import MinGRU

matplotlib.use("Agg")
from matplotlib import pyplot

CELLS = {
    "elman": (Elman, {}), "jordan": (Jordan, {}), "lstm": (LSTM, {}), "peephole_lstm": (LSTM, {"peephole": True}),
    "coupled_lstm": (CoupledLSTM, {}), "gru": (GRU, {}), "gru_reset_before": (GRUResetBefore, {}), "mgu": (MGU, {}),
    "min_gru": (MinGRU, {}),
}  # fmt: skip
SYMBOLS, ITEMS, HIDDEN, BATCH = 8, 4, 64, 64
FAR = 200
TIME_STEPS = 100_000  # of training sequences at most, whatever their length


class Net(nn.Module):
    """A cell and a linear answer."""

    def __init__(self, name, inputs, outputs):
        super().__init__()
        kind, options = CELLS[name]
        gated = {"forget_bias": 1.0} if kind.remember else {}
        self.cell = kind((inputs,), HIDDEN, orthogonal=True, **gated, **options)
        self.answer = nn.Linear(HIDDEN, outputs)

    def forward(self, x):
        return self.answer(self.cell(x, self.cell.initial(len(x)))[0])


def adding(length, generator):
    values = torch.rand(BATCH, length, generator=generator)
    marks = torch.zeros(BATCH, length)
    rows = torch.arange(BATCH)
    first = torch.randint(0, length // 2, (BATCH,), generator=generator)
    second = torch.randint(length // 2, length, (BATCH,), generator=generator)
    marks[rows, first] = marks[rows, second] = 1
    return torch.stack([values, marks], 2), values[rows, first] + values[rows, second]


def copying(length, generator):
    symbols = torch.randint(0, SYMBOLS, (BATCH, ITEMS), generator=generator)
    blank, ask = torch.full((BATCH, length), SYMBOLS), torch.full((BATCH, ITEMS), SYMBOLS + 1)
    return one_hot(torch.cat([symbols, blank, ask], 1), SYMBOLS + 2).float(), symbols


class Adding:
    inputs, outputs, make = 2, 1, staticmethod(adding)

    @staticmethod
    def loss(y, target):
        return mse_loss(y[:, -1, 0], target)

    @staticmethod
    def accuracy(y, target):
        return ((y[:, -1, 0] - target).abs() < 0.1).float().mean().item()


class Copying:
    inputs, outputs, make = SYMBOLS + 2, SYMBOLS, staticmethod(copying)

    @staticmethod
    def loss(y, target):
        return cross_entropy(y[:, -ITEMS:].flatten(0, 1), target.flatten())

    @staticmethod
    def accuracy(y, target):
        return (y[:, -ITEMS:].argmax(2) == target).float().mean().item()


TASKS = {"adding": Adding, "copy": Copying}


def train(job):
    """One cell on one problem: accuracy, and the gradient norms of the cell as it is then."""
    name, task, length, steps, seed = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    problem, generator = TASKS[task], torch.Generator().manual_seed(seed)
    net = Net(name, problem.inputs, problem.outputs)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    began, solved, step = time.perf_counter(), 0, 0
    while step < steps and solved < 3:
        x, target = problem.make(length, generator)
        loss = problem.loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        if step % 50 == 0:
            solved = solved + 1 if test(net, problem, length, 2) > 0.995 else 0
    accuracy = test(net, problem, length, 20, seed=2 * 10**6)
    result = {"cell": name, "task": task, "length": length, "accuracy": accuracy, "steps": step, "job": [steps, seed]}
    print(*result.values(), f"{time.perf_counter() - began:.0f} s", flush=True)
    if task == "adding":
        result["gradient"] = gradients(net)
    return result


@torch.no_grad()
def test(net, problem, length, batches, seed=10**6):
    generator = torch.Generator().manual_seed(seed)
    batches = [problem.make(length, generator) for _ in range(batches)]
    return sum(problem.accuracy(net(x), target) for x, target in batches) / len(batches)


def gradients(net):
    """Norm of d loss / d h(t) for every t, mean over a batch; the loss is that of the answer after FAR steps."""
    x, target = adding(FAR, torch.Generator().manual_seed(7))
    state, hidden = net.cell.initial(BATCH), []
    for t in range(FAR):
        _, state = net.cell(x[:, t : t + 1], state)
        h = state[0] if isinstance(state, tuple) else state
        h.retain_grad()
        hidden.append(h)
    mse_loss(net.answer(hidden[-1])[:, 0], target, reduction="sum").backward()  # y is h
    return [h.grad.norm(dim=1).mean().item() for h in hidden]


def untrained(name):
    torch.manual_seed(0)
    return gradients(Net(name, 2, 1))


def draw(results, lengths, steps):
    style = dict(zip(CELLS, pyplot.cm.tab10.colors))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (task, title) in zip(axes, (("adding", "adding problem"), ("copy", "delayed copy"))):
        for name in sorted({r["cell"] for r in results}, key=list(CELLS).index):
            found = {r["length"]: r["accuracy"] for r in results if r["cell"] == name and r["task"] == task}
            axis.plot(lengths, [found[n] for n in lengths], "o-", color=style[name], label=name, alpha=0.8)
        axis.set(title=title, xlabel="T, steps", xscale="log", xticks=lengths, ylim=(0, 1.02))
        axis.set_xticklabels(lengths)
        axis.minorticks_off()
    axes[0].set_ylabel("accuracy")
    figure.suptitle(f"after at most {steps:,} (and {TIME_STEPS:,} / T) training steps", fontsize="small")
    axes[1].legend(fontsize="small")
    figure.savefig(ROOT / "docs" / "memory_accuracy.png", dpi=100)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    longest = max((n for n in lengths if n <= FAR // 2), default=lengths[0])
    for name in sorted({r["cell"] for r in results}, key=list(CELLS).index):
        trained = next(r for r in results if r["cell"] == name and r["task"] == "adding" and r["length"] == longest)
        for axis, norms in zip(axes, (untrained(name), trained["gradient"])):
            axis.plot(range(1, FAR + 1), norms, color=style[name], label=name, alpha=0.8)
    for axis, title in zip(axes, ("untrained", f"trained on the adding problem, T = {longest}")):
        axis.set(title=title, xlabel="t (the loss is at the right end)", yscale="log", ylim=(1e-12, 1e2))
    axes[0].set_ylabel("norm of d loss / d h(t)")
    axes[0].legend(fontsize="small")
    figure.savefig(ROOT / "docs" / "memory_gradient.png", dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 30, 100, 200, 500])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=ROOT / "runs" / "memory.json", help="results so far")
    options = parser.parse_args()
    results = json.loads(options.kept.read_text()) if options.kept.exists() else []
    results = [r for r in results if r["job"] == [min(options.steps, TIME_STEPS // r["length"]), options.seed]]
    done = {(r["cell"], r["task"], r["length"]) for r in results}
    jobs = [
        (name, task, length, min(options.steps, TIME_STEPS // length), options.seed)
        for length in options.lengths for task in TASKS for name in options.cells
        if (name, task, length) not in done
    ]  # fmt: skip
    options.kept.parent.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(options.parallel) as pool:
        for result in pool.imap_unordered(train, jobs):
            results.append(result)
            options.kept.write_text(json.dumps(results))
    results = [r for r in results if r["cell"] in options.cells and r["length"] in options.lengths]
    draw(results, options.lengths, options.steps)
    rows = []
    for task in TASKS:
        for name in options.cells:
            found = {r["length"]: r for r in results if r["cell"] == name and r["task"] == task}
            rows.append([task, name, *(f"{found[n]['accuracy']:.0%} ({found[n]['steps']})" for n in options.lengths)])
    note = f"accuracy (training steps, at most {options.steps} and {TIME_STEPS}/T) for T steps; hidden {HIDDEN}, batch {BATCH}, Adam 3e-3, seed {options.seed}"
    report("memory", ["problem", "cell", *(f"T={n}" for n in options.lengths)], rows, note)


if __name__ == "__main__":
    main()
