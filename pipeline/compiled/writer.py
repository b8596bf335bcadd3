"""From a tape to the source of kernels.

All arrays are time-major: ``X (T, B or 1, blocks * H)`` the parts of x, ``U`` the recurrent products, ``V (T, B, H)``
the operands computed on the way, ``S (T, B, H)`` the memory before each step, ``N`` after it, ``P (n, rows, H)`` the
peepholes, whose rows serve the B rows in turn (one for all, or over images one for each pixel); with a D, the gradient
of each.
"""

from collections.abc import Iterable

from pipeline.compiled.tape import Recorded, Value

BINARY = {"add": "+", "sub": "-", "mul": "*"}
HEAD = """import numpy as np
from numba import njit
from pipeline.compiled.numerics import exp, f4, hard_sigmoid, hard_slope, sigmoid, tanh"""
ELEMENTWISE = '@njit(nogil=True, fastmath={"contract"}, error_model="numpy")'
Output = tuple[str, str, Value]  # the view that is written, how (= or +=), what


class Writer:
    """Writes the kernels of one recorded cell."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        count = range(len(recorded.new))
        self.memory, operands = [f"M{k}" for k in count], [f"V{p}" for p in recorded.computed]
        self.forward = ["X", "U", "P", *operands, *(f"S{k}" for k in count)]
        self.after = [f"N{k}" for k in count]
        self.backward = ["DY", "DX", "DU", "DP", *(f"D{operand}" for operand in operands), *(f"D{k}" for k in count)]

    def source(self) -> str:
        """The whole module: the steps of the forward and backward pass."""
        recorded, products, parts = self.recorded, self.recorded.products, [HEAD]
        for p in recorded.computed:
            parts.append(self.kernel(f"before{p}", self.forward, [(f"V{p}[t, b]", "=", products[p].operand)]))
            dus = [self.du(name) for name in products[p].names]
            parts.append(self.kernel(f"back{p}", [*self.forward, *self.backward], dus))
        parts.append(self.kernel("after", [*self.forward, *self.after], self.news()))
        rest = [self.du(name) for product in products if product.of is not None for name in product.names]
        if not recorded.shared:
            rest += [(self.part("DX", name), "=", value) for name, value in recorded.dx.items()]
        rest += [(f"DP[t, {recorded.seen.index(name)}]", "+=", value) for name, value in recorded.dp.items()]
        rest += [(f"D{k}[b]", "=", value) for k, value in enumerate(recorded.dstates)]
        parts.append(self.kernel("back", [*self.forward, *self.backward], rest))
        return "\n\n".join(parts)

    def du(self, name: str) -> Output:
        """The gradient of a product's block."""
        return self.part("DU", name), "=", self.recorded.du[name]

    def news(self) -> list[Output]:
        """The new memory."""
        return [(f"N{k}[t, b]", "=", value) for k, value in enumerate(self.recorded.new)]

    def part(self, array: str, name: str, row: str = "b") -> str:
        """A block of X, U or their gradients."""
        number = (self.recorded.inputs if "X" in array else self.recorded.gates).index(name)
        return f"{array}[t, {row}, {number} * H : {number + 1} * H]"

    def kernel(self, name: str, arguments: list[str], outputs: list[Output]) -> str:
        """One pass over the gates, for the steps from ``begin`` up to ``end``."""
        return "\n".join(
            [
                ELEMENTWISE,
                f"def {name}(begin, end, {', '.join(arguments)}):",
                "    H = S0.shape[2]",
                "    for t in range(begin, end):",
                "        for b in range(S0.shape[1]):",
                *self.pass_over(outputs),
            ]
        )

    def pass_over(self, outputs: Iterable[Output]) -> list[str]:
        """The inner loop: views of the arrays, then the needed operations in order."""
        views: dict[str, str] = {}

        def at(array: str) -> str:
            return views.setdefault(array, f"a{len(views)}") + "[h]"

        outputs, body = list(outputs), []
        for index in self.recorded.tape.needed(value for _, _, value in outputs):
            operation, *rest = self.recorded.tape.nodes[index]
            match operation:
                case "const":
                    text = f"f4({rest[0]!r})"
                case "dstate":
                    text = at(f"D{rest[0]}[b]") + (f" + {at('DY[t, b]')}" if rest[0] == 0 else "")
                case "x":
                    text = at(self.part("X", rest[0], "min(b, X.shape[1] - 1)"))
                case "u":
                    text = at(self.part("U", rest[0]))
                case "peep":
                    text = at(f"P[{self.recorded.seen.index(rest[0])}, b % P.shape[1]]")
                case "state":
                    text = at(f"S{rest[0]}[t, b]")
                case "dv":
                    text = at(f"DV{rest[0]}[b]")
                case "add" | "sub" | "mul":
                    text = f"v{rest[0]} {BINARY[operation]} v{rest[1]}"
                case _:
                    text = f"{operation}(v{rest[0]})"
            body.append(f"    v{index} = {text}")
        body += [f"    {at(target)} {sign} v{value.index}" for target, sign, value in outputs]
        lines = [*(f"{name} = {array}" for array, name in views.items()), "for h in range(H):", *body]
        return [" " * 12 + line for line in lines]
