"""From a tape to the source of kernels.

All arrays are time-major: ``X (T, B, blocks * H)`` the parts of x, ``U`` the recurrent products, ``V (T, B, H)``
the operands computed on the way, ``S (T + 1, B, H)`` the memory, ``P (n, rows, H)`` the peepholes, whose rows serve
the B rows in turn (one for all, or over images one for each pixel); with a D, the gradient of each.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.layers.tape import Recorded, Value

NUMERICS = Path(__file__).with_name("numerics.py")
BINARY = {"add": "+", "sub": "-", "mul": "*"}
ELEMENTWISE = '@njit(nogil=True, cache=CACHE, fastmath={"contract"}, error_model="numpy")'
Output = tuple[str, str, Value]  # the view that is written, how (= or +=), what


class Writer:
    """Writes the kernels of one recorded cell."""

    def __init__(
        self, recorded: Recorded, inputs: tuple[str, ...], gates: tuple[str, ...], seen: tuple[str, ...], shared: bool
    ) -> None:
        """``shared``: the gradients of x's parts are those of the products, and are not written a second time."""
        self.recorded, self.tape, self.inputs, self.gates, self.seen = recorded, recorded.tape, inputs, gates, seen
        self.shared = shared
        self.states = range(len(recorded.new))
        self.computed = [p for p, product in enumerate(recorded.products) if product.of is None]
        forward = ["X", "U", "P", *(f"V{p}" for p in self.computed), *(f"S{k}" for k in self.states)]
        self.forward = ", ".join(forward)
        self.memory = [f"M{k}" for k in self.states]
        backward = ["DY", "DX", "DU", "DP", *(f"DV{p}" for p in self.computed), *(f"D{k}" for k in self.states)]
        self.backward = ", ".join(backward)

    def source(self) -> str:
        """The whole module: numerics, the steps of the forward and backward pass, and the kernel for few rows."""
        parts = [NUMERICS.read_text()]
        products = self.recorded.products
        for p in self.computed:
            parts.append(self.kernel(f"before{p}", self.forward, [(f"V{p}[t, b]", "=", products[p].operand)]))
            dus = [self.du(name) for name in products[p].names]
            parts.append(self.kernel(f"back{p}", f"{self.forward}, {self.backward}", dus))
        parts.append(self.kernel("after", self.forward, self.news()))
        rest = [self.du(name) for product in products if product.of is not None for name in product.names]
        if not self.shared:
            rest += [(part("DX", self.inputs, name), "=", value) for name, value in self.recorded.dx.items()]
        rest += [(f"DP[t, {self.seen.index(name)}]", "+=", value) for name, value in self.recorded.dp.items()]
        rest += [(f"D{k}[b]", "=", value) for k, value in enumerate(self.recorded.dstates)]
        parts.append(self.kernel("back", f"{self.forward}, {self.backward}", rest))
        parts.append(self.stream())
        parts.append(self.step("apart", joint=False))
        if self.shared and [product.of for product in products] == [0]:
            parts.append(self.step("joint", joint=True))
        return "\n\n".join(parts)

    def du(self, name: str) -> Output:
        """The gradient of a product's block."""
        return part("DU", self.gates, name), "=", self.recorded.du[name]

    def news(self) -> list[Output]:
        """The new memory."""
        return [(f"S{k}[t + 1, b]", "=", value) for k, value in enumerate(self.recorded.new)]

    def kernel(self, name: str, arguments: str, outputs: list[Output]) -> str:
        """One pass over the gates, for the steps from ``begin`` up to ``end``."""
        return "\n".join(
            [
                ELEMENTWISE,
                f"def {name}(begin, end, {arguments}):",
                "    H = S0.shape[2]",
                "    for t in range(begin, end):",
                "        for b in range(S0.shape[1]):",
                *self.pass_over(outputs, 12),
            ]
        )

    def pass_over(self, outputs: list[Output], indent: int, joint: bool = False) -> list[str]:
        """The inner loop: views of the arrays, then the needed operations in order. ``joint``: as in ``step``."""
        views: dict[str, str] = {}

        def view(array: str) -> str:
            return views.setdefault(array, f"a{len(views)}")

        body = []
        for index in self.tape.needed(value for _, _, value in outputs):
            operation, *rest = self.tape.nodes[index]
            match operation:
                case "const":
                    text = f"f4({rest[0]!r})"
                case "dstate":
                    text = f"{view(f'D{rest[0]}[b]')}[h]" + (f" + {view('DY[t, b]')}[h]" if rest[0] == 0 else "")
                case "x" if joint:
                    text = "f4(0.0)"
                case "x" | "u" | "peep" | "state" | "dv":
                    text = f"{view(self.leaf(operation, rest[0]))}[h]"
                case "add" | "sub" | "mul":
                    text = f"v{rest[0]} {BINARY[operation]} v{rest[1]}"
                case _:
                    text = f"{operation}(v{rest[0]})"
            body.append(f"    v{index} = {text}")
        body += [f"    {view(target)}[h] {sign} v{value.index}" for target, sign, value in outputs]
        lines = [*(f"{name} = {array}" for array, name in views.items()), "for h in range(H):", *body]
        return [" " * indent + line for line in lines]

    def leaf(self, kind: str, name: str | int) -> str:
        """Where the numbers of a leaf are."""
        match kind:
            case "x":
                return part("X", self.inputs, str(name))
            case "u":
                return part("U", self.gates, str(name))
            case "peep":
                return f"P[{self.seen.index(str(name))}, b % P.shape[1]]"
            case "state":
                return f"S{name}[t, b]"
        return f"DV{name}[b]"

    def step(self, name: str, joint: bool) -> str:
        """One step with arrays that have no axis of time: ``M0, M1, ... (B, H)`` is the memory before, ``N0, N1, ...``
        the new one, ``Y`` the output, a copy. ``joint``: ``U`` already holds the sum of the products and of x's parts.
        """
        news = self.recorded.new
        outputs: list[Output] = [(f"N{k}[b]", "=", value) for k, value in enumerate(news)]
        arrays = ["U" if joint else "X, U", "P", *self.memory, *(f"N{k}" for k in self.states), "Y"]
        lines = [
            f"def {name}({', '.join(arrays)}):",
            "    H = M0.shape[1]",
            "    for b in range(M0.shape[0]):",
            *self.pass_over([*outputs, ("Y[b]", "=", news[0])], 8, joint),
        ]
        text = re.sub(r"S(\d)\[t, b\]", r"M\1[b]", "\n".join(lines))
        return ELEMENTWISE + "\n" + text.replace("[t, b", "[b")

    def stream(self) -> str:
        """All steps of a few rows in one call, products included; ``x (B, T, F)``, and ``M0, M1, ... (B, H)`` are the
        memory before and after. ``short``: the product with x is made here, too. Returns a
        sum over x and the last memory, which is finite if they are.
        """
        lines = [
            f"def stream(short, x, weight_ih, bias_ih, weight_hh, bias_hh, P, X, Y, {', '.join(self.memory)}):",
            "    H = M0.shape[1]",
            f"    U = np.empty((M0.shape[0], {max(1, len(self.gates))} * H), f4)",
            *(f"    V{p} = np.empty(M0.shape, f4)" for p in self.computed),
            "    if short:",
            "        rows = x.shape[0] * x.shape[1]",
            "        multiply(weight_ih, bias_ih, x.reshape((rows, x.shape[2])), X.reshape((rows, X.shape[2])))",
            "    for t in range(X.shape[1]):",
        ]
        rows = "        for b in range(M0.shape[0]):"
        for p, product in enumerate(self.recorded.products):
            if product.of is None:
                lines += [rows, *self.pass_over([(f"V{p}[t, b]", "=", product.operand)], 12)]
            begin = self.gates.index(product.names[0])
            blocks = f"{begin} * H : {begin + len(product.names)} * H"
            operand = f"V{p}" if product.of is None else f"M{product.of}"
            lines.append(f"        multiply(weight_hh[{blocks}], bias_hh[{blocks}], {operand}, U[:, {blocks}])")
        lines += [
            rows,
            *self.pass_over(self.news(), 12),
            rows,
            "            Y[b, t] = M0[b]",
            f"    return x.sum() + {' + '.join(f'{m}.sum()' for m in self.memory)}",
        ]
        text = re.sub(r"S(\d)\[t( \+ 1)?, b\]", r"M\1[b]", "\n".join(lines))
        return ELEMENTWISE + "\n" + re.sub(r"([UV]\d?)\[t, b", r"\1[b", text.replace("X[t, b", "X[b, t"))


def part(array: str, among: Iterable[str], name: str) -> str:
    """A block of an array whose last axis is the blocks ``among``."""
    number = list(among).index(name)
    return f"{array}[t, b, {number} * H : {number + 1} * H]"
