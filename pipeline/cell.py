"""What a recurrent cell is, and the plain loop that runs one over time.

A cell writes its equations once, in ``step``. Everything that depends on x alone is ``project``, so that it leaves the
time loop as one large product. ``forward`` is the loop; a cell with a proven faster path overrides it, and a test
holds the two equal.
"""

import torch
from torch import Tensor, nn

from pipeline.stage import Stage, State


class Cell(Stage):
    """A recurrent cell as a Stage: ``x (B, T, F) -> y (B, T, hidden)``.

    Subclasses set ``gates`` (how many blocks of ``hidden`` rows the weights have) and write ``step``. The state is the
    hidden vector ``h (B, hidden)``, unless ``initial`` says more. Weights are laid out and initialised as in
    ``torch.nn`` (uniform in +-1/sqrt(hidden)), so its trained parameters can be copied in.
    """

    gates: int

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.in_shape, self.out_shape, self.hidden = (inputs,), (hidden,), hidden
        rows = self.gates * hidden
        self.weight_ih = nn.Parameter(torch.empty(rows, inputs))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    @property
    def weights(self) -> list[Tensor]:
        """The parameters in the order that torch's fused kernels take them."""
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def initial(self, batch: int) -> State:
        """H = 0."""
        return self.zeros(batch, self.hidden)

    def project(self, x: Tensor) -> Tensor:
        """W_ih x + b_ih for all steps at once: ``(B, T, F) -> (B, T, gates * hidden)``."""
        return nn.functional.linear(x, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One time step from ``projected (B, gates * hidden)``: the equations."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The readable loop over time."""
        outputs = []
        for projected in self.project(x).unbind(1):
            y, state = self.step(projected, state)
            outputs.append(y)
        return torch.stack(outputs, 1), state
