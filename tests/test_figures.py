"""The drawn figures of docs/ are those that their scripts draw; a cell's diagram computes what the cell computes."""

import importlib
import sys

import pytest
import torch
from conftest import ROOT, configured, options

from pipeline.cells.cell import Cell
from pipeline.core.build import build

FIGURES = ROOT / "docs" / "figures"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FIGURES))
    yield importlib.import_module
    for path in FIGURES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def cells(scripts):
    return scripts("cells")


def compute(nodes, name, cell, known):
    """The value of a node of a diagram, by the weights of the cell."""
    if name in known:
        return known[name]
    node = nodes[name]
    block = name.rstrip("'_")

    def product(source, weights, bias, among):
        return compute(nodes, source, cell, known) @ cell.rows(weights, among, (block,)).T + cell.rows(bias, among, (block,))  # fmt: skip

    def term(one):
        if one.startswith("p."):
            return cell.weight_ch[cell.seen.index(block)] * compute(nodes, one[2:], cell, known)
        if one.startswith("+"):
            return compute(nodes, one[1:], cell, known)
        if one == "x":
            return product(one, cell.weight_ih, cell.bias_ih, cell.inputs)
        return product(one.lstrip("-"), cell.weight_hh, cell.bias_hh, cell.gates)

    if node.learnt:
        functions = {"σ": torch.sigmoid, "tanh": torch.tanh}
        return functions.get(node.does, lambda total: total)(sum(map(term, node.inputs)))
    values = [compute(nodes, one.lstrip("-"), cell, known) for one in node.inputs]
    work = {"×": torch.mul, "+": torch.add, "1−": lambda v: 1 - v, "tanh.": torch.tanh}
    return work[node.does](*values)


def test_each_dense_cell_has_a_diagram(cells):
    dense = {name for name in options("cell") if not name.startswith("conv_")}
    assert set(cells.CELLS) == dense - {"coupled_peephole_lstm"}  # which is two of them together


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in options("cell") if (ROOT / "docs" / f"cell_{name}.svg").exists()])
def test_a_diagram_computes_its_cell(cells, name):
    torch.manual_seed(0)
    cell = build(configured("train", f"cell={name}")["cell"], Cell, shape=(5,), hidden=4).double()
    memory = torch.randn(len(cell.memory), 3, 4, dtype=torch.double)
    x = torch.randn(3, 5, dtype=torch.double)
    y, _ = cell(x[:, None], tuple(memory) if len(memory) > 1 else memory[0])
    known = {"x": x} | dict(zip(cell.memory, memory, strict=True))
    told = compute(cells.read(cells.CELLS[name]), f"{cell.memory[0]}'", cell, known)
    torch.testing.assert_close(told, y[:, 0])


def test_figures_are_those_of_the_scripts(cells, scripts, tmp_path):
    drawn = {f"cell_{name}": cells.draw(name, text) for name, text in cells.CELLS.items()}
    for name, figure in (drawn | {"flow": scripts("flow").draw()}).items():
        figure.save(tmp_path / "drawn.svg")
        assert (tmp_path / "drawn.svg").read_text() == (ROOT / "docs" / f"{name}.svg").read_text(), name
