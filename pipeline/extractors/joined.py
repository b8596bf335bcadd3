"""Several extractors of sound, or of pictures, side by side, on one hop."""

import math
from collections.abc import Callable
from typing import Annotated, Any, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from pipeline.extractors.extractor import Extractor
from pipeline.layers.stage import Chain, Stage, State, left_context

LITTLE = 1e-3  # deviation below which nothing is told apart


class Joined(Extractor):
    """Samples ``(B, T*hop)`` to the features of all ``parts``, one after another, at the longest hop: ``(B, T, F)``; or
    pictures ``(B, T, 3, H, W)``, at one step each. What parts make as images ``(C, H, W)`` is then flat.

    Of a part with a shorter hop these are the mean and the deviation of each feature over the last ``span`` seconds. A
    part that answers before the latest one waits for it.
    """

    def __init__(self, parts: Annotated[list[Extractor], Field(min_length=2)], span: PositiveFloat = 1.0) -> None:
        """ValueError for parts that do not go together."""
        super().__init__()
        self.spec, self.hop = parts[0].spec, max(part.hop for part in parts)
        self.delay = max(-(-part.delay * part.hop // self.hop) for part in parts)
        for part in parts:
            self.refuse_other(part, round(span * self.spec.rate / part.hop))
        learns = any(parameter.requires_grad for part in parts for parameter in part.parameters())
        self.costly = any(part.costly for part in parts) and not learns
        self.parts = nn.ModuleList(self.in_time(part, round(span * self.spec.rate / part.hop)) for part in parts)
        self.in_shape, self.compares = parts[0].in_shape, any(part.compares for part in parts)
        self.out_shape = (sum(math.prod(part.out_shape) for part in self.chains()),)

    def refuse_other(self, part: Extractor, window: int) -> None:
        """ValueError if a part cannot be joined with the others; ``window``: how many of its steps are pooled."""
        at = f"extractor.parts: {type(part).__name__}"
        if part.spec.both or (part.spec.sound and len(part.out_shape) != 1):
            raise ValueError(f"{at} makes no vectors of sound; take extractors that do, such as logmel")
        if part.spec != self.spec:
            raise ValueError(f"{at} takes {part.spec}, the first part {self.spec}; set one rate and size")
        if self.hop % part.hop:
            raise ValueError(
                f"{at} makes a step every {part.hop} samples, which do not divide the {self.hop} of another"
            )
        if window < self.hop // part.hop:
            raise ValueError(f"extractor.span: must not be less than a step, {self.hop / self.spec.rate:.3g} s")

    def in_time(self, part: Extractor, window: int) -> Chain:
        """A part with the hop and the delay of all."""
        times = self.hop // part.hop
        stages: dict[str, Stage] = {"part": part}
        if wait := self.delay * times - part.delay:
            stages["wait"] = Wait(part.out_shape, wait)
        if times > 1:
            stages["pool"] = MeanDeviation(part.out_shape, window, times)
        return Chain(**stages)

    def chains(self) -> list[Chain]:
        """The parts in order, each on the common hop."""
        return [cast(Chain, part) for part in self.parts]

    def extractors(self) -> list[Extractor]:
        """The parts as they are."""
        return [cast(Extractor, chain.stages[0]) for chain in self.chains()]

    def lasting(self) -> Tensor:
        """Of each part."""
        every = zip(self.extractors(), self.chains(), strict=True)
        return torch.cat([part.lasting().expand(math.prod(chain.out_shape)) for part, chain in every])

    def mirror(self, features: Tensor) -> Tensor:
        """Of each part."""
        return self.by_part(features, lambda part, own: part.mirror(own))

    def over_images(self, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Those of each part."""
        return self.by_part(features, lambda part, own: part.over_images(own, change))

    def by_part(self, features: Tensor, change: Callable[[Extractor, Tensor], Tensor]) -> Tensor:
        """Features ``(B, T, F)`` of pictures with those of each part changed, in the shape that the part makes."""
        every = self.extractors()
        cuts = torch.split(features, [math.prod(part.out_shape) for part in every], -1)
        shaped = [own.view(*own.shape[:2], *part.out_shape) for part, own in zip(every, cuts, strict=True)]
        return torch.cat([change(*pair).flatten(2) for pair in zip(every, shaped, strict=True)], -1)

    def recorded(self, config: dict[str, Any]) -> dict[str, Any]:
        """Of each part."""
        every = zip(self.extractors(), config["parts"], strict=True)
        return config | {"parts": [part.recorded(own) for part, own in every]}

    def initial(self, batch: int) -> State:
        """Of each part."""
        return tuple(part.initial(batch) for part in self.chains())

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Each part for itself."""
        found = [part(x, before) for part, before in zip(self.chains(), state, strict=True)]
        return torch.cat([y.flatten(2) for y, _ in found], -1), tuple(after for _, after in found)


class Wait(Stage):
    """The same ``(B, T, F)``, so many steps later; zeros before."""

    def __init__(self, shape: tuple[int, ...], steps: int) -> None:
        super().__init__()
        self.in_shape, self.out_shape, self.delay = shape, shape, steps

    def initial(self, batch: int) -> State:
        """What is held back."""
        return self.zeros(batch, self.delay, *self.in_shape)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The steps that have waited long enough."""
        joined, state = left_context(state, x)
        return joined[:, : x.shape[1]], state


class MeanDeviation(Stage):
    """``(B, T*hop, F)`` to mean and deviation of each feature over the last ``window`` steps, ``(B, T, 2F)``."""

    def __init__(self, shape: tuple[int, ...], window: int, hop: int) -> None:
        super().__init__()
        self.in_shape, self.out_shape = shape, (2 * shape[0],)
        self.window, self.hop = window, hop

    def initial(self, batch: int) -> State:
        """The steps remembered, and how many there were; those before the recording do not count."""
        seen = torch.zeros(batch, 1, dtype=torch.int64, device=self.anchor.device)
        return self.zeros(batch, self.window - self.hop, *self.in_shape), seen

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Of the windows that end in this chunk."""
        past, seen = state
        joined, past = left_context(past, x)
        variance, mean = torch.var_mean(joined.unfold(1, self.window, self.hop), -1, correction=0)
        count = seen + torch.arange(self.hop, x.shape[1] + 1, self.hop, device=x.device)
        longer = (self.window / count.clamp(max=self.window))[:, :, None]  # than what was seen: the rest is zeros
        variance = (longer * (variance - (longer - 1) * mean.square())).clamp(min=0)
        return torch.cat([longer * mean, (variance + LITTLE**2).sqrt()], -1), (past, seen + x.shape[1])
