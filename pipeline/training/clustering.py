"""Groups of clips by their embeddings: k-means (Lloyd 1982) of scikit-learn, whose centres become a model's head."""

from collections.abc import Iterable

import numpy as np
import torch

from pipeline.core.errors import ConfigError
from pipeline.layers.nearest import Nearest
from pipeline.media.sample import Batch
from pipeline.model.classifier import Classifier
from pipeline.model.features import Features

MANY = 10_000  # clips: beyond, k-means works on parts of them
ATTEMPTS = 10  # of other beginnings, the best of which counts


@torch.inference_mode()
def fit_groups(model: Classifier, batches: Iterable[Batch], seed: int) -> None:
    """Set the centres of a model's head. ConfigError for another head, or fewer clips than groups."""
    if not isinstance(model.head, Nearest):
        raise ConfigError(
            "task=groups: tells groups by their centres, which another head does not have; set head=nearest"
        )
    model.eval()
    features, pool, found = Features(model, None), model.head.stages[0], []
    for batch in batches:
        y, _ = pool(model.encode(features.compute(batch)), pool.initial(len(batch.lengths)))
        found.append(y[torch.arange(len(y)), model.last_step(batch.lengths)].float().cpu().numpy())
    count, x = len(model.labels), np.concatenate(found)
    if len(x) < count:
        raise ConfigError(f"task.count: {count} groups of {len(x)} clips; set fewer, or give more clips")
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = KMeans if len(x) <= MANY else MiniBatchKMeans
    made = kind(count, n_init=ATTEMPTS, random_state=seed).fit(x)
    model.head.distance.settle(made.cluster_centers_, made.inertia_ / x.size)
