"""Classes that have moved: models, runs, ledgers and snapshots that were saved before name them by where they were."""

from collections.abc import Mapping
from typing import Any

MOVED = {  # of several old names of a class, the first one is the first that it had
    "pipeline.encoder.Encoder": "pipeline.encoders.encoder.Encoder",
    "pipeline.engines.local.Local": "pipeline.batch.local.Local",
    "pipeline.engines.ray.Ray": "pipeline.batch.ray.Ray",
    "pipeline.events.Decoder": "pipeline.decoders.decoder.Decoder",
    "pipeline.model.decoder.Decoder": "pipeline.decoders.decoder.Decoder",
    "pipeline.heads.Head": "pipeline.layers.heads.Head",
    "pipeline.smoothing.EMA": "pipeline.layers.smoothing.EMA",
    "pipeline.sources.files.Files": "pipeline.batch.files.Files",
    "pipeline.sources.ledgers.Ledgers": "pipeline.batch.ledgers.Ledgers",
    "pipeline.trainer.Trainer": "pipeline.training.trainer.Trainer",
}


def with_new_names(settings: Any) -> Any:
    """Settings in which each ``_target_`` has the name of today."""
    return renamed(settings, MOVED)


def with_old_names(settings: Any) -> Any:
    """Settings in which each ``_target_`` has its first name, by which a model is known for ever."""
    return renamed(settings, {new: old for old, new in reversed(MOVED.items())})


def renamed(settings: Any, names: Mapping[str, str]) -> Any:
    """Settings with other names for some ``_target_``."""
    if isinstance(settings, Mapping):
        return {
            key: names.get(value, value) if key == "_target_" and isinstance(value, str) else renamed(value, names)
            for key, value in settings.items()
        }
    return [renamed(value, names) for value in settings] if isinstance(settings, list | tuple) else settings
