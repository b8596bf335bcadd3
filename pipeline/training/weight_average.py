"""The mean of a model's weights over its last steps, which answers better than those of the last step alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of all weights (Polyak & Juditsky 1992).

    In step n its decay is min(decay, (1 + n) / (10 + n)): the first weights, which are drawn, are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """``decay`` 0: the weights of the last step."""
        self.model, self.decay, self.steps = model, decay, 0
        self.values = {name: tensor.detach().clone() for name, tensor in self.current().items()}

    def current(self) -> dict[str, Tensor]:
        """The trained weights as they are now."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def update(self) -> None:
        """After a step."""
        self.steps += 1
        if self.decay:
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            now = [value.detach() for value in self.current().values()]
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(list(self.values.values()), now, self.steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """In here, the model has the mean weights."""
        if not self.decay:
            yield
            return
        before = {name: value.detach().clone() for name, value in self.current().items()}
        self.assign(self.values)
        try:
            yield
        finally:
            self.assign(before)

    @torch.no_grad()
    def assign(self, values: dict[str, Tensor]) -> None:
        """Give the model other weights."""
        for name, value in self.current().items():
            value.copy_(values[name])

    def state(self) -> dict[str, Tensor | int]:
        """What must be kept to go on."""
        kept = self.values if self.decay else {}
        return {"steps": self.steps, **{f"value.{name}": value for name, value in kept.items()}}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Go on from there."""
        self.steps = int(state["steps"])
        for name, value in (self.values if self.decay else {}).items():
            value.copy_(torch.as_tensor(state[f"value.{name}"]))
