"""Each recurrent cell as a diagram: `python docs/figures/cells.py` writes docs/cell_NAME.svg.

A cell is described by a line for each node: name, what it does, its inputs, column and row. Boxes are learnt maps of
x and of the memory; circles work unit by unit. ``+a`` adds a as it is, ``p.c`` is a peephole, ``-a`` draws a's line to
the side before it goes up. tests/test_figures.py computes a step by these lines and compares it with the cell.
"""

from pathlib import Path
from typing import NamedTuple

from svg import LEARNT, LINE, MEMORY, Svg

LSTM = """
f σ x h {f}              {column} 2
g tanh x h               3 2
o σ x h {o}              4 2
fc × c f                 {column} 0
ig × i -g                3 1
c' + fc ig               3 0
t tanh. c'               5 1
h' × t -o                5 2
"""
COUPLED = LSTM.replace("ig × i -g", "i 1− f                   2 1\nig × -i -g")
GRU = """
k 1− -z                  5 2
kn × -n k                5 1
zh × h z                 4 0
h' + zh kn               5 0
"""
CELLS = {
    "elman": """
h' tanh x h            1 2
""",
    "jordan": """
h tanh x y             1 2
y' tanh h              2 2
""",
    "lstm": "i σ x h 1 2" + LSTM.format(column=2, f="", o=""),
    "peephole_lstm": "i σ x h p.c 1 2" + LSTM.format(column=2, f="p.c", o="p.c'"),
    "coupled_lstm": COUPLED.format(column=1, f="", o=""),
    "gru": """
r σ x h                1 2
n_ R h                 2 2
rn × n_ r              2 1
n tanh x +rn           3 1
z σ x h                4 2
""" + GRU,
    "gru_reset_before": """
r σ x h                1 2
rh × h r               1 1
n tanh x -rh           2 1
z σ x h                4 2
""" + GRU,
    "mgu": """
f σ x h                1 2
fh × h f               1 1
n tanh x -fh           2 1
k 1− -f                4 2
fn × -n -f             3 1
kh × h k               4 0
h' + kh -fn            5 0
""",
    "min_gru": """
z σ x                  1 2
k 1− -z                2 2
kh × h k               2 0
n W x                  3 2
zn × z n               3 1
h' + kh zn             3 0
""",
}  # fmt: skip
UNIT, TALL, LEFT, TOP = 84, 62, 70, 34  # pixels of a column, a row, and of the margins


class Node(NamedTuple):
    """A line of a description."""

    name: str
    does: str
    inputs: list[str]
    column: float
    row: float

    @property
    def learnt(self) -> bool:
        """Whether it multiplies by matrices."""
        return self.does in ("σ", "tanh", "R", "W")


def read(text: str) -> dict[str, Node]:
    """The nodes of a description by name."""
    lines = [line.split() for line in text.splitlines() if line]
    return {name: Node(name, does, inputs, float(x), float(y)) for name, does, *inputs, x, y in lines}


def draw(name: str, text: str) -> Svg:
    """The diagram of a cell."""
    nodes = read(text)
    last = max(node.column for node in nodes.values()) + 1
    memories = sorted({node.name[0] for node in nodes.values() if node.name.endswith("'")})
    used = {
        learnt: [one for node in nodes.values() if node.learnt is learnt for one in node.inputs]
        for learnt in (False, True)
    }
    rail = next((one for one in memories if one in used[False]), None)  # the memory that is scaled and added to
    below = next((one for one in memories if one in used[True]), None)  # the one that matrices multiply
    top = TOP if rail else TOP - 1.65 * TALL
    bus = {"x": top + 3.0 * TALL} | ({below: top + 3.45 * TALL} if below else {})
    drawing = Svg(LEFT + last * UNIT + 30, top + 3.75 * TALL, f"The cell {name}, one step")
    places = {node.name: (LEFT + node.column * UNIT, top + node.row * TALL) for node in nodes.values()}
    ends = dict.fromkeys(bus, 0.0)
    for node in nodes.values():
        x, y = places[node.name]
        for one in node.inputs:
            source = one.lstrip("+-").removeprefix("p.")
            if one.startswith("p."):  # a peephole: from the rail, beside the node
                drawing.line((x - 20, top), (x - 20, y - 14), dashed=True)
                drawing.dot(x - 20, top)
            elif source in bus and node.learnt:
                side = x + (0 if len(node.inputs) == 1 else 10 if source == below else -10)
                drawing.line((side, bus[source]), (side, y + 15))
                drawing.dot(side, bus[source])
                ends[source] = max(ends[source], side)
            else:
                begin = places.get(source, (62, top))
                branches = (
                    source in memories
                    or source.endswith("'")
                    or text.count(f" {source} ") + text.count(f"-{source} ") > 1
                )
                wire(drawing, begin, (x, y), one.startswith("-") or begin[1] == top, node.learnt, branches)
    for source, height in bus.items():
        if source == rail:
            drawing.line((80, top), (80, height), (ends[source], height), arrow=False)
            drawing.dot(80, top)
        else:
            drawing.line((62, height), (ends[source], height), arrow=False)
            drawing.box(
                34, height, "x(t)" if source == "x" else f"{source}(t−1)", LINE if source == "x" else MEMORY, 56, 22
            )
    if rail:
        drawing.box(34, top, f"{rail}(t−1)", MEMORY, 56)
    for node in nodes.values():
        x, y = places[node.name]
        if node.learnt:
            drawing.box(x, y, node.does, LEARNT)
            drawing.text(x - 27, y - 17, "" if "_" in node.name else node.name.rstrip("'"), size=13, anchor="end")
        else:
            drawing.circle(x, y, node.does.rstrip("."))
        if node.name.endswith("'"):
            drawing.line((x, y), (LEFT + last * UNIT - 29, y))
            drawing.box(LEFT + last * UNIT, y, f"{node.name[0]}(t)", MEMORY, 56)
    return drawing


def wire(
    drawing: Svg, begin: tuple[float, float], end: tuple[float, float], aside: bool, box: bool, branches: bool
) -> None:
    """A line from one node to the edge of another: along the row first (``aside``), or up or down first. A dot stands
    where it leaves a line that goes on.
    """
    (x, y), (to_x, to_y) = begin, end
    corner = (to_x, y) if aside else (x, to_y)
    if corner[1] == to_y and x != to_x:  # it arrives along the row
        stop = (to_x + (1 if x > to_x else -1) * (24 if box else 14), to_y)
    else:
        stop = (to_x, to_y + (1 if y > to_y else -1) * 15)
    drawing.line(begin, *([] if corner in (begin, end) else [corner]), stop)
    if corner not in (begin, end) and branches:
        drawing.dot(*corner)


if __name__ == "__main__":
    for name, text in CELLS.items():
        draw(name, text).save(Path(__file__).resolve().parents[1] / f"cell_{name}.svg")
