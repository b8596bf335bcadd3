"""Two streams of different hop on one clock, each of which may be missing."""

import torch
from torch import Tensor

from pipeline.layers.stage import Stage, State, running_max


class Fuse(Stage):
    """Joins a fast and a slow stream at the fast one's hop, holding the newest slow vector in its state.

    One step is ``(F + 1 + S + 1,)``: the fast vector, whether it is there (1 or 0), the slow vector, and whether it is
    new (1), not new (0: the one before holds) or lost (-1: forgotten until the next). Out comes the same shape: what is
    not there is zeros, marked 0. So streams may arrive in any rhythm, a different one in each row of a batch.
    """

    def __init__(self, fast: int, slow: int) -> None:
        """Sizes of the two vectors."""
        super().__init__()
        self.fast, self.slow = fast, slow
        self.in_shape = self.out_shape = (fast + 1 + slow + 1,)

    def initial(self, batch: int) -> State:
        """No slow vector yet: its place, and whether there is one."""
        return self.zeros(batch, self.slow), self.zeros(batch, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Each step takes the slow vector of the last step that was new, from this chunk or before."""
        fast, here, slow, news = torch.split(x, [self.fast, 1, self.slow, 1], -1)
        held, known = state
        changed = news.round() != 0
        steps = torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1)
        latest = running_max(changed * steps)  # 0: from before this chunk
        slow = torch.where(news > 0, slow, torch.zeros_like(slow))
        vectors, marks = torch.cat([held[:, None], slow], 1), torch.cat([known[:, None], (news > 0).to(slow)], 1)
        vectors = vectors.gather(1, latest.expand(-1, -1, self.slow))
        marks = marks.gather(1, latest)
        there = (here > 0).to(fast)
        y = torch.cat([torch.where(here > 0, fast, torch.zeros_like(fast)), there, vectors, marks], -1)
        return y, (vectors[:, -1].clone(), marks[:, -1].clone())
