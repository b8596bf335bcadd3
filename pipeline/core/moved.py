"""Classes that have moved: models and runs that were saved before name them by where they were."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "pipeline.encoder.Encoder": "pipeline.encoders.encoder.Encoder",
    "pipeline.engines.local.Local": "pipeline.batch.local.Local",
    "pipeline.engines.ray.Ray": "pipeline.batch.ray.Ray",
    "pipeline.events.Decoder": "pipeline.model.decoder.Decoder",
    "pipeline.heads.Head": "pipeline.layers.heads.Head",
    "pipeline.smoothing.EMA": "pipeline.layers.smoothing.EMA",
    "pipeline.sources.files.Files": "pipeline.batch.files.Files",
    "pipeline.sources.ledgers.Ledgers": "pipeline.batch.ledgers.Ledgers",
    "pipeline.trainer.Trainer": "pipeline.training.trainer.Trainer",
}


def with_new_names(settings: Any) -> Any:
    """Settings in which each ``_target_`` is called what it is called today."""
    if isinstance(settings, Mapping):
        return {
            key: MOVED.get(value, value) if key == "_target_" and isinstance(value, str) else with_new_names(value)
            for key, value in settings.items()
        }
    return [with_new_names(value) for value in settings] if isinstance(settings, list | tuple) else settings
