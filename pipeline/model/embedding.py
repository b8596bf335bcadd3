"""What a trained encoder makes of its input, as a model whose numbers that is."""

from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.model.classifier import Classifier


def embedding_of(model: Any, live: bool) -> Classifier:
    """A model of the same extractor and encoder that tells the encoder's numbers ``e1 ... eF``, pooled over time: since
    the start, or if ``live`` over the newest seconds of its head. ConfigError for a graph, which does not show them,
    and for an encoder that gives pictures.
    """
    if not isinstance(model, Classifier):
        raise ConfigError("output=embeddings: a graph tells no embedding; give model.safetensors, with compute=torch")
    if len(shape := model.encoder.out_shape) > 1:
        hint = "give a checkpoint of another encoder, such as image_recurrent"
        raise ConfigError(f"output=embeddings: the encoder gives pictures of shape {shape}, no vectors; {hint}")
    labels = [f"e{k}" for k in range(1, shape[0] + 1)]
    head = {"_target_": "pipeline.layers.nearest.Pooled", "window": model.config["head"].get("live") if live else None}
    parts: dict[str, dict[str, Any]] = {
        "head": head,
        "smoothing": {"_target_": "pipeline.layers.smoothing.EMA", "seconds": 0.0},
        "task": {"_target_": "pipeline.tasks.values.Values"},
        "decoder": {"_target_": "pipeline.decoders.limits.Limits"},
        "gate": {},
    }
    other = Classifier(model.config | parts, labels)
    weights = {name: value for name, value in model.state_dict().items() if name.split(".")[0] not in parts}
    other.load_state_dict(weights, strict=False)
    return other.to(model.anchor.device).eval()
