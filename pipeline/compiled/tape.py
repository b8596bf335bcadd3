"""A cell's equations as data: recorded once with symbols, differentiated, and written out as code.

The tape is a list of operations in static single assignment form in which equal operations are one. Its gradient is
the reverse mode of automatic differentiation (Griewank & Walther 2008, chapter 3), written onto the same tape.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

from pipeline.core.errors import ConfigError

Node: TypeAlias = tuple[Any, ...]  # (operation, *indices of arguments), or for a leaf (kind, *name)
LEAVES = ("const", "x", "u", "state", "peep", "dstate", "dv")
KNOWN = "equations have +, -, * and the m of pipeline/cells/cell.py; with `compiled = False` any function of torch"


class Value:
    """A place on a tape, with the arithmetic that equations need."""

    def __init__(self, tape: "Tape", index: int) -> None:
        self.tape, self.index = tape, index

    def __add__(self, other: "Value | float") -> "Value":
        return self.tape.apply("add", self, other)

    def __sub__(self, other: "Value | float") -> "Value":
        return self.tape.apply("sub", self, other)

    def __rsub__(self, other: "Value | float") -> "Value":
        return self.tape.apply("sub", other, self)

    def __mul__(self, other: "Value | float") -> "Value":
        return self.tape.apply("mul", self, other)

    def __neg__(self) -> "Value":
        return self * -1.0

    __radd__, __rmul__ = __add__, __mul__


@dataclass
class Product:
    """A recurrent product: the operand, and the blocks of ``weight_hh`` that it meets."""

    operand: Value
    names: tuple[str, ...]

    @property
    def of(self) -> int | None:
        """The number of the memory that is the operand; None if the operand is computed in the same step."""
        kind, *rest = self.operand.tape.nodes[self.operand.index]
        return rest[0] if kind == "state" else None


class Tape:
    """Operations in order. Also the vocabulary ``m`` in which a cell's equations are written."""

    def __init__(self, seen: tuple[str, ...], gate: str) -> None:
        self.nodes: list[Node] = []
        self.known: dict[Node, int] = {}
        self.products: list[Product] = []
        self.seen, self.squash = seen, gate

    def put(self, *node: Any) -> Value:
        """The node's place, new or known."""
        if node not in self.known:
            self.known[node] = len(self.nodes)
            self.nodes.append(node)
        return Value(self, self.known[node])

    def apply(self, operation: str, *arguments: "Value | float") -> Value:
        """An operation on values and numbers; what adds nothing or multiplies by one is left out."""
        a, *rest = [v if isinstance(v, Value) else self.put("const", float(v)) for v in arguments]
        constants = [self.nodes[v.index][1] if self.nodes[v.index][0] == "const" else None for v in (a, *rest)]
        if operation == "mul" and 1.0 in constants:
            return rest[0] if constants[0] == 1.0 else a
        if operation in ("add", "sub") and constants[1] == 0.0:
            return a
        return self.put(operation, a.index, *(v.index for v in rest))

    def gate(self, v: Value) -> Value:
        """The gates' function."""
        return self.apply(self.squash, v)

    def tanh(self, v: Value) -> Value:
        """Hyperbolic tangent."""
        return self.apply("tanh", v)

    def recur(self, v: Value, *names: str) -> SimpleNamespace:
        """The results of a product are new leaves: it happens outside of the tape."""
        self.products.append(Product(v, names))
        return SimpleNamespace(**{name: self.put("u", name) for name in names})

    def peep(self, name: str, c: Value) -> "Value | float":
        """Peephole weights are leaves."""
        return self.put("peep", name) * c if name in self.seen else 0.0

    def norm(self, c: Value) -> Value:
        """Only plain cells are recorded."""
        return c

    def backward(self, seeds: Iterable[tuple[Value, Value]]) -> Callable[[str, Any], Value]:
        """Append the gradient: ``seeds`` are values with the gradients that reach them from outside.

        Returns a function that gives the gradient of a leaf.
        """
        gradient: dict[int, Value] = {}

        def reach(index: int, amount: Value) -> None:
            gradient[index] = gradient[index] + amount if index in gradient else amount

        for value, seed in seeds:
            reach(value.index, seed)
        for index in range(len(self.nodes) - 1, -1, -1):
            operation, *arguments = self.nodes[index]
            if operation in LEAVES or index not in gradient:
                continue
            for argument, amount in zip(arguments, self.rule(index, gradient[index]), strict=True):
                reach(argument, amount)
        return lambda *leaf: gradient.get(self.put(*leaf).index, self.put("const", 0.0))

    def rule(self, index: int, d: Value) -> list[Value]:
        """The chain rule for one operation: what reaches its arguments of the gradient ``d``."""
        operation, *arguments = self.nodes[index]
        y, a = Value(self, index), [Value(self, argument) for argument in arguments]
        match operation:
            case "add":
                return [d, d]
            case "sub":
                return [d, d * -1.0]
            case "mul":
                return [d * a[1], d * a[0]]
            case "sigmoid":
                return [d * (y * (1.0 - y))]
            case "tanh":
                return [d * (1.0 - y * y)]
        return [d * self.apply("hard_slope", y)]

    def needed(self, outputs: Iterable[Value]) -> list[int]:
        """The nodes that the outputs depend on, in order."""
        wanted, todo = set(), [value.index for value in outputs]
        while todo:
            index = todo.pop()
            if index not in wanted:
                wanted.add(index)
                if self.nodes[index][0] not in LEAVES:
                    todo += self.nodes[index][1:]
        return sorted(wanted)


@dataclass
class Recorded:
    """A cell's time step on a tape: the products, the new memory, and the gradients.

    ``dx``, ``du`` and ``dp`` are by name the gradients of the parts of x, of the products and of the peepholes;
    ``dstates`` those of the old memory, without what reaches it through the products.
    """

    tape: Tape
    inputs: tuple[str, ...]
    gates: tuple[str, ...]
    new: list[Value]
    dx: dict[str, Value]
    du: dict[str, Value]
    dp: dict[str, Value]
    dstates: list[Value]

    def __post_init__(self) -> None:
        self.products, self.seen = self.tape.products, self.tape.seen
        self.of = [product.of for product in self.products]  # the memory that each product takes
        self.computed = [p for p, of in enumerate(self.of) if of is None]
        # Where x and the products are only ever added, their gradients are one.
        self.shared = self.inputs == self.gates and all(
            self.dx[name].index == self.du[name].index for name in self.inputs
        )

    def spans(self, hidden: int) -> list[slice]:
        """The rows of ``weight_hh`` of each product."""
        blocks = [(self.gates.index(product.names[0]), len(product.names)) for product in self.products]
        return [slice(begin * hidden, (begin + count) * hidden) for begin, count in blocks]


def record(cell: Any) -> Recorded:
    """Run the equations of a ``pipeline.cells.cell.Cell`` once with symbols, and differentiate them. ConfigError if
    they cannot be recorded.
    """
    tape = Tape(cell.seen, cell.gate)
    x = SimpleNamespace(**{name: tape.put("x", name) for name in cell.inputs})
    states = [tape.put("state", k) for k in range(len(cell.memory))]
    new = run(cell, tape, x, states)
    seeds = [(value, tape.put("dstate", k)) for k, value in enumerate(new)]
    seeds += [(product.operand, tape.put("dv", p)) for p, product in enumerate(tape.products) if product.of is None]
    of = tape.backward(seeds)
    dx, du, dp = (
        {name: of(kind, name) for name in names}
        for kind, names in (("x", cell.inputs), ("u", cell.gates), ("peep", cell.seen))
    )
    return Recorded(tape, cell.inputs, cell.gates, new, dx, du, dp, [of("state", k) for k in range(len(states))])


def run(cell: Any, tape: Tape, x: SimpleNamespace, states: list[Value]) -> list[Value]:
    """The new memory by the equations. ConfigError if they use what the tape does not know, or are not complete."""
    name = f"{type(cell).__name__}.equations"
    try:
        new = list(cell.equations(tape, x, *states))
    except (AttributeError, TypeError) as error:
        frame = error.__traceback__ and error.__traceback__.tb_next
        where = f"{name}, line {frame.tb_lineno}" if frame else name
        reason = str(error).replace("'Tape' object", "m")
        raise ConfigError(f"{where}: {reason}; {KNOWN}") from error
    if len(new) != len(cell.memory):
        raise ConfigError(f"{name}: returns {len(new)} values; expected {len(cell.memory)} ({', '.join(cell.memory)})")
    runs = [cell.gates[k : k + n] for k in range(len(cell.gates)) for n in range(1, len(cell.gates) + 1)]
    used = [gate for product in tape.products for gate in product.names]
    if sorted(used) != sorted(cell.gates) or any(product.names not in runs for product in tape.products):
        given = ", ".join(f"m.recur(..., {', '.join(map(repr, product.names))})" for product in tape.products)
        raise ConfigError(
            f"{name}: has {given or 'no m.recur'}; each of gates = {cell.gates} belongs into one m.recur, "
            "in their order and without gaps"
        )
    return new
