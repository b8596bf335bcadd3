"""From a tape to the source of kernels.

All arrays are time-major: ``X (T, B or 1, blocks * H)`` the parts of x, ``U`` the recurrent products, ``V (T, B, H)``
the operands computed on the way, ``S (T, B, H)`` the memory before each step, ``N`` after it, ``P (n, rows, H)`` the
peepholes, whose rows serve the B rows in turn (one for all, or over images one for each pixel); with a D, the gradient
of each.
"""

import re
from collections.abc import Iterable

from pipeline.layers.tape import Recorded, Value

BINARY = {"add": "+", "sub": "-", "mul": "*"}
HEAD = """import numpy as np
from numba import njit
from pipeline.layers.numerics import exp, f4, hard_sigmoid, hard_slope, multiply, sigmoid, tanh"""
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
        """The whole module: the steps of the forward and backward pass, and the kernel for few rows."""
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
        return "\n\n".join([*parts, self.stream()])

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

    def stream(self) -> str:
        """All steps of a few rows in one call, products included; ``x (B, T, F)``, and ``M0, M1, ... (B, H)`` are the
        memory before and after. ``short``: the product with x is made here, too. Returns a
        sum over x and the last memory, which is finite if they are.
        """
        gates = self.recorded.gates
        lines = [
            ELEMENTWISE,
            f"def stream(short, x, weight_ih, bias_ih, weight_hh, bias_hh, P, X, Y, {', '.join(self.memory)}):",
            "    H = M0.shape[1]",
            f"    U = np.empty((M0.shape[0], {max(1, len(gates))} * H), f4)",
            *(f"    V{p} = np.empty(M0.shape, f4)" for p in self.recorded.computed),
            "    if short:",
            "        rows = x.shape[0] * x.shape[1]",
            "        multiply(weight_ih, bias_ih, x.reshape((rows, x.shape[2])), X.reshape((rows, X.shape[2])))",
            "    for t in range(X.shape[1]):",
        ]
        rows = "        for b in range(M0.shape[0]):"
        for p, product in enumerate(self.recorded.products):
            if product.of is None:
                lines += [rows, *self.pass_over([(f"V{p}[t, b]", "=", product.operand)])]
            begin = gates.index(product.names[0])
            blocks = f"{begin} * H : {begin + len(product.names)} * H"
            operand = f"V{p}" if product.of is None else f"M{product.of}"
            lines.append(f"        multiply(weight_hh[{blocks}], bias_hh[{blocks}], {operand}, U[:, {blocks}])")
        lines += [rows, *self.pass_over([*self.news(), ("Y[b, t]", "=", self.recorded.new[0])])]
        lines.append(f"    return x.sum() + {' + '.join(f'{m}.sum()' for m in self.memory)}")
        text = re.sub(r"[SN](\d)\[t, b\]", r"M\1[b]", "\n".join(lines))
        return re.sub(r"([UV]\d?)\[t, b", r"\1[b", text.replace("X[t, min(b, X.shape[1] - 1)", "X[b, t"))
