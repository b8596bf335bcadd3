"""A gate for events that need a voice: it is open where somebody has spoken a moment ago."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.extractors.voice import Voice
from pipeline.layers.stage import Stage, State, left_context

Share = Annotated[float, Field(ge=0, le=1)]


class VoiceGate(Stage):
    """Samples ``(B, T*hop)`` to ``(B, T, 1)``: 1 where within the last ``back`` seconds there was voice for ``least``
    seconds in all, else 0. The state: that of ``Voice``, and what it has found within that time.
    """

    def __init__(
        self,
        rate: PositiveInt,
        hop: PositiveInt,
        threshold: Share = 0.2,
        least: NonNegativeFloat = 0.04,
        back: PositiveFloat = 0.8,
        path: str | None = None,
    ) -> None:
        """``hop`` in samples at ``rate`` Hz; ``threshold``: the probability from which on there is voice; ``path``: see
        ``Voice``. ValueError if ``least`` is longer than ``back``.
        """
        super().__init__()
        if least > back:
            raise ValueError(f"gate.least ({least} s) must not be above gate.back ({back} s)")
        self.voice = Voice(rate, hop / rate, path)
        self.voice.key = "gate.path"
        self.in_shape, self.out_shape, self.hop = (), (1,), hop
        (self.times,) = self.voice.out_shape
        spacing = hop / rate / self.times
        self.threshold, self.back = threshold, max(1, round(back / spacing))
        self.least = max(1, min(self.back, round(least / spacing)))

    def initial(self, batch: int) -> State:
        """No voice yet."""
        return self.voice.initial(batch), self.zeros(batch, self.back - 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Times with voice, counted at the end of each step."""
        before, found = state
        sure, before = self.voice(x, before)
        joined, found = left_context(found, (sure >= self.threshold).to(sure).flatten(1))
        count = joined[:, self.times - 1 :].unfold(1, self.back, self.times).sum(-1, keepdim=True)
        return (count >= self.least).to(sure), (before, found)
