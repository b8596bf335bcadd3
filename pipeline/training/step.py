"""One change of the weights: the loss of a batch, its gradients, and the optimizer's step.

The loss is a sum over all clips of a step, on all devices and in all parts, divided by their number: so it is the same
however the clips are shared out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pipeline.core.errors import ConfigError, DivergedError, NotFiniteError
from pipeline.layers.stage import State, detach, tree
from pipeline.media.sample import Batch, StepGrid
from pipeline.tasks.losses import Loss
from pipeline.training.devices import gather, sum_gradients, sum_over_processes
from pipeline.training.run import Run

NOTHING = [0.0, 0.0, 0.0]  # of losses, right answers and clips


@dataclass
class TrainingStep:
    """How a run's weights are changed.

    Attributes:
        frames: weight of the loss of single steps of time.
        clip: greatest norm of the gradients.
        carry: share of clips that begin in the state in which others ended.
        over: share of the training that is over.
    """

    fabric: Fabric
    run: Run
    loss: Loss
    frames: float = 1.0
    clip: float = 1.0
    carry: float = 0.0
    over: float = 0.0

    def full(self, parts: Sequence[Batch | None]) -> list[float]:
        """One change of the weights by the parts of a batch; the sum of the losses, right answers, and clips."""
        ready = [self.run.features.compute_augmented(part) for part in parts if part is not None]
        targets = [self.targets(*made) for made in ready]
        counts = self.counts([batch for _, batch in ready], targets)
        if not counts[0]:
            return NOTHING
        total = hits = 0.0
        for (x, batch), wanted in zip(ready, targets, strict=True):
            loss, right = self.batch_loss(x, batch, wanted, counts)
            self.fabric.backward(loss)
            total, hits = total + float(loss.detach()), hits + right
        return self.optimizer_step(total, hits, counts)

    def optimizer_step(self, total: float, hits: float, counts: Sequence[float]) -> list[float]:
        """Change the weights by the gradients of all devices. DivergedError if the loss or a gradient is no number."""
        total, hits = sum_over_processes(self.fabric, [total, hits])
        if not math.isfinite(total):
            raise self.diverged("loss", total)
        run = self.run
        sum_gradients(self.fabric, list(run.model.parameters()))
        norm: Any = self.fabric.clip_gradients(run.logits, run.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        if not math.isfinite(norm):
            raise self.diverged("gradient's norm", float(norm))
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.average.update()
        return [total * counts[0], hits, counts[0]]

    def diverged(self, name: str, value: float) -> DivergedError:
        """The error for a number that is not finite."""
        where = f"the {name} is {value} in epoch {self.run.progress.epoch + 1}"
        return DivergedError(f"{where}; lower optimizer.lr or trainer.clip, or look at the data")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Logits of features, as ``Classifier.logits``. DivergedError if a memory has become infinite."""
        try:
            found: tuple[Tensor, Tensor, State] = self.run.logits(x, state)
        except NotFiniteError:
            raise self.diverged("loss", math.nan) from None
        return found

    def counts(self, batches: Sequence[Batch], targets: Sequence[Tensor]) -> list[float]:
        """Of a whole step, on all devices: clips, and steps of time whose truth is known."""
        known = sum(map(self.run.model.task.known, targets))
        clips = sum(len(batch.labels) for batch in batches)
        return sum_over_processes(self.fabric, [float(clips), float(known)])

    def targets(self, x: Tensor, batch: Batch) -> Tensor:
        """The truth of each answer ``(B, T, ...)`` to features, unknown where it does not count."""
        model = self.run.model
        steps = StepGrid(x.shape[1] // model.encoder.hop, model.hop, model.delay)
        truth = model.task.step_truth(batch, steps, self.run.background, len(model.labels))
        return truth if self.frames else torch.full_like(truth, model.task.unknown)

    def batch_loss(self, x: Tensor, batch: Batch, targets: Tensor, counts: Sequence[float]) -> tuple[Tensor, float]:
        """This part's share of a step's loss, its clips mixed in pairs if so set; and how many answers were right."""
        if self.run.model.task.reads == "strings":
            return self.sequence_loss(x, batch, targets, counts)
        rows, alpha = len(batch.labels), self.run.features.augment.mixup
        weight = float(torch.distributions.Beta(alpha, alpha).sample()) if alpha else 1.0
        order = torch.randperm(rows) if alpha else torch.arange(rows)
        if alpha:
            x = weight * x + (1 - weight) * x[order.to(x.device)]
        logits, pooled, self.run.carried = self.forward(x, self.initial(rows))
        answer = pooled[torch.arange(rows), self.run.model.last_step(batch.lengths)]
        truth = self.run.model.task.clip_truth(batch, len(self.run.model.labels))
        total = self.loss_terms(answer, logits, truth, targets, counts)
        if alpha:
            other = self.loss_terms(answer, logits, truth[order], targets[order], counts)
            total = weight * total + (1 - weight) * other
        return total, self.run.model.task.hits(answer, truth)

    def sequence_loss(self, x: Tensor, batch: Batch, targets: Tensor, counts: Sequence[float]) -> tuple[Tensor, float]:
        """The same with a loss over whole sequences; at first (``Task.warm``) with that of single steps alone."""
        model = self.run.model
        logits, _, self.run.carried = self.forward(x, self.initial(len(batch.labels)))
        steps, seconds = model.last_step(batch.lengths) + 1 - model.delay, model.hop / model.rate
        cost, hits = model.task.sequence_cost(logits[:, model.delay :], steps, batch, seconds)
        if counts[1] and self.over < model.task.warm:
            return self.loss.of_steps(logits.flatten(0, 1), targets.flatten(0, 1)) / counts[1], hits
        return cost / max(1.0, counts[0]), hits

    def loss_terms(
        self, answer: Tensor, logits: Tensor, truth: Tensor, targets: Tensor, counts: Sequence[float]
    ) -> Tensor:
        """Loss of the clips' answers ``(B, K)``, plus that of single steps ``(B, T, K)`` where their truth is known."""
        loss = self.loss(answer, truth) / max(1.0, counts[0])
        if counts[1]:
            loss = loss + self.frames * self.loss.of_steps(logits.flatten(0, 1), targets.flatten(0, 1)) / counts[1]
        return loss

    def truncated(self, batch: Batch | None, seconds: float) -> list[float]:
        """A change of the weights for every so many ``seconds`` of a batch; the state goes on, gradients do not.

        In a block in which nothing is known, on any device, the weights stay.
        """
        model, pool, hop = self.run.model, self.run.model.head.stages[1], self.run.model.encoder.hop
        size = max(1, round(seconds * model.rate / model.hop))
        made = None if batch is None else self.run.features.compute_augmented(batch)
        if made and made[0].requires_grad:
            raise ConfigError("trainer.tbptt: the extractor learns, which needs the whole clip; set trainer.tbptt=null")
        targets = self.targets(*made) if made else torch.empty(0, 0)
        ends = model.last_step(made[1].lengths).clamp(max=targets.shape[1] - 1) if made else torch.empty(0)
        longest = max(gather(self.fabric, targets.shape[1]))
        clips = self.counts([made[1]] if made else [], [])[0]
        whole = model.task.clip_truth(made[1], len(model.labels)) if made else torch.empty(0)
        total = hits = 0.0
        state, past = (self.initial(len(made[1].labels)), pool.initial(len(made[1].labels))) if made else ((), ())
        for start in range(0, longest if clips else 0, size):
            wanted = targets[:, start : start + size]
            over = ((ends >= start) & (ends < start + size)).nonzero()[:, 0]  # the clips that end here
            known, ending = sum_over_processes(self.fabric, [float(model.task.known(wanted)), float(len(over))])
            value = right = 0.0
            if made and wanted.shape[1]:
                with torch.set_grad_enabled(bool(known or ending)):
                    logits, _, state = self.forward(made[0][:, start * hop : (start + size) * hop], state)
                    pooled, past = pool(logits, past)
                state, past = detach(state), detach(past)
                if logits.requires_grad:
                    answer, truth = pooled[over, ends[over] - start], whole[over]
                    loss = self.loss_terms(answer, logits, truth, wanted, (clips, known))
                    self.fabric.backward(loss)
                    value, right = float(loss.detach()), model.task.hits(answer, truth)
            if known or ending:
                found = self.optimizer_step(value, right, (clips,))
                total, hits = total + found[0], hits + found[1]
        self.run.carried = state if made else self.run.carried
        return [total, hits, clips] if clips else NOTHING

    def initial(self, rows: int) -> State:
        """The encoder's state at the start: the initial one, or (for a share ``carry`` of the rows) the one in which
        some clip of the last batch ended. So it learns to work in the middle of a stream, where clips never begin.
        """
        fresh = self.run.model.encoder.initial(rows)
        if self.run.carried is None or not self.carry:
            return fresh
        chosen = torch.rand(rows, device=self.run.model.anchor.device) < self.carry
        last = detach(self.run.carried)

        def mixed(old: Tensor, new: Tensor) -> Tensor:
            again = old[torch.arange(rows, device=old.device) % len(old)].to(new.dtype)
            return torch.where(chosen.view(-1, *[1] * (new.ndim - 1)), again, new)

        return tree(mixed, last, fresh)
