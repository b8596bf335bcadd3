"""From batches of clips to what the encoder sees in training: augmentation, extractors, and what is computed once."""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import islice

import torch
from torch import Tensor

from pipeline.augmentations.augmentation import Augmentation
from pipeline.media.sample import Batch
from pipeline.model.classifier import Classifier, on_device


class Features:
    """Features of batches for one model. Those of a costly extractor are kept in memory, one entry per clip, and the
    next training in this process (of another fold, with another seed) finds them if it has the same extractor.
    """

    def __init__(self, model: Classifier, augment: Augmentation | None) -> None:
        """``augment`` changes the clips in training."""
        self.model, self.augment = model, augment or Augmentation()
        self.augment.know(model.labels, model.extractor)
        self.costly = getattr(model.extractor, "costly", False)

    @torch.inference_mode()
    def fit(self, batches: Iterator[Batch], count: int = 20) -> None:
        """Mean and deviation of the features over a random part of the training data; an extractor that learns has
        none that last. Pretrained weights come first.
        """
        model = self.model
        found: list[list[Tensor]] = [[] for _ in model.fronts()]
        for front, _ in model.fronts():
            front.fetch()
        for batch in islice(batches, count):
            x = on_device(model.whole(batch.x, int(batch.lengths.max())), model)
            there = x[2].amax(1) > 0 if isinstance(x, tuple) else torch.ones(len(batch.labels), 1)
            for track, ((front, _), y) in enumerate(zip(model.fronts(), model.measured(x), strict=True)):
                steps = (batch.lengths // (model.grain_of(track) * front.hop)).clamp(min=1).tolist()
                found[track] += [row[:n] for row, n, t in zip(y, steps, there[:, track], strict=True) if t]
        for (front, standardize), rows in zip(model.fronts(), found, strict=True):
            if not any(parameter.requires_grad for parameter in front.parameters()):
                standardize.fit(rows)

    @cached_property
    def kept(self) -> dict[str, list[Tensor]]:
        """Features of clips, by their keys."""
        model, digest = self.model, hashlib.sha256()
        for tensor in model.extractor.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return kept(json.dumps([model.config["extractor"], model.delay * model.hop, digest.hexdigest()]))

    def plain(self, batch: Batch) -> Tensor:
        """Standardised features ``(B, T, ...)`` of whole clips, the delay included."""
        return self.model.assembled(*self.found(batch, self.costly and all(batch.keys)))

    def found(self, batch: Batch, once: bool) -> tuple[list[Tensor], Tensor | None]:
        """Features of each track, and which tracks are there if there are two; ``once``: computed for a clip once."""
        model = self.model
        if once and not model.spec.both:
            return self.looked_up(batch), None
        x = on_device(model.whole(batch.x, int(batch.lengths.max())), model)
        present = x[2] if isinstance(x, tuple) else None
        return self.looked_up(batch) if once else model.measured(x), present

    def changed(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The same of clips changed at random, and the batch with their new times."""
        model, augment = self.model, self.augment
        batch = augment.clips(batch, model.spec)
        once = self.costly and all(batch.keys) and not augment.raw
        mirror = model.fronts()[-1][0].mirror
        # Without gradient where nothing is learnt: an extractor then computes in pieces that stay in the cache.
        with torch.set_grad_enabled(any(parameter.requires_grad for parameter in model.extractor.parameters())):
            found, present = self.found(batch, once)
        found, batch = augment.tracks(found, batch, mirror)
        found[-1] = extended(found[-1], self.steps(int(batch.lengths.max())))
        y = model.assembled(found, present)
        return augment.features(y, model.extractor.hop / model.rate), batch

    def steps(self, longest: int) -> int:
        """Features of the last track that hold ``longest`` ticks and the delay, in whole steps of the model."""
        model, fronts = self.model, self.model.fronts()
        ticks = longest + model.delay * model.hop
        return (ticks + -ticks % model.grain) // (model.grain_of(len(fronts) - 1) * fronts[-1][0].hop)

    def looked_up(self, batch: Batch) -> list[Tensor]:
        """Features of each track, computed only for clips that were never seen."""
        rows = [self.of_clip(batch, row) for row in range(len(batch.keys))]
        tracks = []
        for parts in zip(*rows, strict=True):
            longest = max(len(part) for part in parts)
            held = [torch.cat([part, part[-1:].expand(longest - len(part), *part.shape[1:])]) for part in parts]
            tracks.append(torch.stack(held))
        return tracks

    @torch.no_grad()
    def of_clip(self, batch: Batch, row: int) -> list[Tensor]:
        """Features ``(T, ...)`` of one clip of a batch."""
        key = batch.keys[row]
        if key not in self.kept:
            spec, length = self.model.spec, int(batch.lengths[row])
            clip = tuple(
                track[row : row + 1, : length // spec.grain * kind.steps]
                for track, kind in zip(batch.x, spec.tracks, strict=True)
            )
            whole = on_device(self.model.whole(clip, length), self.model)
            self.kept[key] = [y[0] for y in self.model.measured(whole)]
        return self.kept[key]


@lru_cache(maxsize=1)
def kept(extractor: str) -> dict[str, list[Tensor]]:
    """Features that an ``extractor`` has made; of the last one alone."""
    return {}


def extended(y: Tensor, steps: int) -> Tensor:
    """``(B, T, ...)`` with exactly so many steps: the last one again, or less of them."""
    missing = steps - y.shape[1]
    return torch.cat([y, y[:, -1:].expand(-1, missing, *y.shape[2:])], 1) if missing > 0 else y[:, :steps]
