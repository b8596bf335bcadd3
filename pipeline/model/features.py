"""From batches of clips to what the encoder gets in training: augmentation, extractors, and a cache of features."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice

import torch
from torch import Tensor

from pipeline.augmentations.augmentation import Augmentation
from pipeline.media.sample import Batch, Span
from pipeline.model.classifier import Classifier, on_device

CACHE_BYTES = 2 << 30  # of main memory, for the features of clips


class FeatureCache:
    """Features of each track by the clip's key, in main memory. A full cache takes no more clips: as each epoch visits
    all of them, dropping the oldest would leave none to be found.
    """

    def __init__(self) -> None:
        self.tracks: dict[str, list[Tensor]] = {}
        self.times: dict[str, tuple[Tensor, list[Span] | None]] = {}  # length and spans of clips that were changed
        self.bytes = 0

    def add(self, key: str, tracks: list[Tensor]) -> None:
        """Keep the features of a clip if there is room."""
        size = sum(track.nbytes for track in tracks)
        if self.bytes + size <= CACHE_BYTES:
            self.tracks[key] = tracks
            self.bytes += size


class Features:
    """Features of batches for one model. Those of a costly extractor are cached, one entry per clip; the next training
    in this process (of another fold, with another seed) finds them if it has the same extractor.
    """

    def __init__(self, model: Classifier, augment: Augmentation | None, seed: int = 0) -> None:
        """``augment`` changes the clips in training, and their fixed copies by ``seed``."""
        self.model, self.augment = model, augment or Augmentation()
        self.changes = f"{seed} {augment}"
        self.augment.setup(model.labels, model.extractor)
        self.costly = getattr(model.extractor, "costly", False)

    @torch.no_grad()
    def fit(self, batches: Iterator[Batch], count: int = 20, anew: bool = True) -> None:
        """Mean and deviation of the features over a random part of the training data; an extractor that learns has
        none that last, unless it borrowed what it begins with. Not ``anew``: only what the task has to know.
        """
        model = self.model
        fronts = model.fronts() if model.spec.both else [(model.extractor, model.standardize)]
        found: list[list[Tensor]] = [[] for _ in fronts]
        for batch in islice(batches, count):
            model.task.meet(batch)
            if not anew:
                continue
            model.extractor.meet(batch)
            tracks, present = self.tracks(batch, self.costly and not self.augment.raw and all(batch.keys))
            there = torch.ones(len(batch.labels), 1) if present is None else present.amax(1) > 0
            tracks = tracks if model.spec.both else [model.extractor.join(tracks, None)]
            for track, ((front, _), y) in enumerate(zip(fronts, tracks, strict=True)):
                steps = (batch.lengths // (model.grain_of(track) * front.hop)).clamp(min=1).tolist()
                found[track] += [row[:n] for row, n, t in zip(y, steps, there[:, track], strict=True) if t]
        model.task.met()
        for (front, standardize), rows in zip(fronts, found, strict=True) if anew else ():
            standardize.fit(rows, front.lasting())

    @torch.no_grad()
    def examine(self, batches: Iterable[Batch]) -> None:
        """Let the task look at the normalised features of training clips, and an encoder that is fitted take what it
        found.
        """
        steps, names = list[Tensor](), list[str]()
        for batch in batches:
            lengths = (batch.lengths // (self.model.hop // self.model.encoder.hop)).clamp(min=1).tolist()
            steps += [row[:n].cpu() for row, n in zip(self.compute(batch), lengths, strict=True)]
            names += batch.names
        found = self.model.task.examine(steps, names)
        if fit := getattr(self.model.encoder, "fit", None):
            fit(*found)

    @cached_property
    def cache(self) -> FeatureCache:
        """The features that this extractor has computed so far."""
        model, digest = self.model, hashlib.sha256()
        for tensor in model.extractor.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return cache_of(json.dumps([model.config["extractor"], model.delay * model.hop, digest.hexdigest()]))

    def compute(self, batch: Batch) -> Tensor:
        """Standardised features ``(B, T, ...)`` of whole clips, the delay included."""
        return self.model.encoder_input(*self.tracks(batch, self.costly and all(batch.keys)))

    def tracks(self, batch: Batch, cached: bool) -> tuple[list[Tensor], Tensor | None]:
        """Features of each track, from the cache if so wanted, and which tracks are there if there are two."""
        model = self.model
        if cached and not model.spec.both:
            return self.look_up(batch), None
        x = on_device(model.pad(batch.x, int(batch.lengths.max())), model)
        present = x[2] if isinstance(x, tuple) else None
        return self.look_up(batch) if cached else model.extract(x), present

    def compute_augmented(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The same of clips changed at random, and the batch with their new times."""
        model, augment = self.model, self.augment
        copied = self.costly and bool(batch.copies) and None not in batch.copies
        cached = self.costly and all(batch.keys) and (copied or not augment.raw)
        if not copied:
            batch = augment.clips(batch, model.spec)
        # Without gradient where nothing is learnt: an extractor then computes in pieces that stay in the cache.
        with torch.set_grad_enabled(any(parameter.requires_grad for parameter in model.extractor.parameters())):
            tracks, present = self.tracks(batch, cached)
        if copied:
            batch = self.with_times(batch)
        tracks, batch = augment.tracks(tracks, batch, model.fronts()[-1][0])
        tracks[-1] = extend(tracks[-1], self.steps(int(batch.lengths.max())))
        y = model.encoder_input(tracks, present)
        return augment.features(y, model.extractor.hop / model.rate), batch

    def steps(self, longest: int) -> int:
        """Features of the last track that hold ``longest`` ticks and the delay, in whole steps of the model."""
        model, fronts = self.model, self.model.fronts()
        ticks = longest + model.delay * model.hop
        return (ticks + -ticks % model.grain) // (model.grain_of(len(fronts) - 1) * fronts[-1][0].hop)

    def look_up(self, batch: Batch) -> list[Tensor]:
        """Features of each track on the model's device, computed only for clips that are not in the cache."""
        names = [self.name(*row) for row in zip(batch.keys, batch.copies, strict=True)]
        rows = [self.cache.tracks.get(name) or self.of_clip(batch, row, name) for row, name in enumerate(names)]
        tracks = []
        for parts in zip(*rows, strict=True):
            longest = max(len(part) for part in parts)
            tracks.append(torch.stack([extend(part[None], longest)[0] for part in parts]).to(self.model.anchor.device))
        return tracks

    def name(self, key: str, copy: int | None) -> str:
        """Under which a clip is kept; a changed copy of it also by what changes it."""
        return f"{key} {self.changes}" if copy else key

    def has(self, key: str, copy: int) -> bool:
        """Whether a clip's features are kept."""
        return self.name(key, copy) in self.cache.tracks

    def with_times(self, batch: Batch) -> Batch:
        """A batch of copies with their own lengths and spans."""
        names = [self.name(*row) for row in zip(batch.keys, batch.copies, strict=True)]
        lengths, spans = zip(*[self.cache.times[name] for name in names], strict=True)
        return replace(batch, lengths=torch.stack(lengths), spans=[*spans])

    @torch.no_grad()
    def of_clip(self, batch: Batch, row: int, name: str) -> list[Tensor]:
        """Features ``(T, ...)`` of one clip of a batch, in main memory; they go into the cache as ``name``."""
        spec, length = self.model.spec, int(batch.lengths[row])
        clip = tuple(
            track[row : row + 1, : length // spec.grain * kind.steps]
            for track, kind in zip(batch.x, spec.tracks, strict=True)
        )
        if batch.copies[row] is not None:
            lists = {key: value[row : row + 1] for key, value in vars(batch).items()}
            one = Batch(**lists | {"x": clip})
            if batch.copies[row]:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]))
                    one = self.augment.clips(one, spec)
            clip, length = one.x, int(one.lengths)
            self.cache.times[name] = one.lengths[0], one.spans[0]
        whole = on_device(self.model.pad(clip, length), self.model)
        tracks = [y[0].to("cpu", copy=True) for y in self.model.extract(whole)]
        self.cache.add(name, tracks)
        return tracks


@lru_cache(maxsize=1)
def cache_of(extractor: str) -> FeatureCache:
    """The features that an ``extractor`` has made; of the last one alone."""
    return FeatureCache()


def extend(y: Tensor, steps: int) -> Tensor:
    """``(B, T, ...)`` with exactly so many steps: the last one again, or less of them."""
    missing = steps - y.shape[1]
    return torch.cat([y, y[:, -1:].expand(-1, missing, *y.shape[2:])], 1) if missing > 0 else y[:, :steps]
