"""Fine-tuning: training begins with the weights of a trained model, where few clips could not teach them."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import ConfigError, ModelError
from pipeline.core.settings import differences
from pipeline.model.classifier import Classifier, load

SAME_PARTS = ("extractor", "encoder", "cell")  # the same weights mean something else with other settings of these
TRAINING_KEYS = {  # settings of how weights begin and are learnt, which do not change their meaning
    "dropout", "recurrent_dropout", "zoneout", "checkpoint", "forget_bias", "orthogonal", "weights", "frozen",
    "tune", "tune_rate", "path",
}  # fmt: skip


def load_pretrained(model: Classifier, path: str) -> str:
    """Give ``model`` the weights of the one at ``path`` (a run's folder or its file), and say so in words.

    The head's rows go to the labels that both have; of other labels they stay as they were drawn. The normalisation
    comes along, as the weights are used to it. ConfigError if extractor, encoder or cell are others; ModelError if
    there is no model. A gate reads weights of its own.
    """
    try:
        other = load(path)
    except ModelError as error:
        raise ModelError(str(error).replace("checkpoint=", "trainer.pretrained=", 1)) from None
    for part in SAME_PARTS:
        there, here = without_training(other.config[part]), without_training(model.config[part])
        kinds = [str(settings.get("_target_", "")).rpartition(".")[2] for settings in (there, here)]
        if found := f"{part} {kinds[0]}, not {kinds[1]}" if kinds[0] != kinds[1] else differences(there, here, part):
            raise ConfigError(f"trainer.pretrained: {path} is of another {part}: {found}; set what it was")
    weights, theirs = model.state_dict(), other.state_dict()
    body = {name for name in weights.keys() | theirs.keys() if not name.startswith(("head.", "smoothing.", "gate."))}
    if odd := sorted(n for n in body if n not in weights or n not in theirs or weights[n].shape != theirs[n].shape):
        raise ConfigError(f"trainer.pretrained: {path} has another {odd[0]}; take the settings of its training")
    known = [(here, other.labels.index(label)) for here, label in enumerate(model.labels) if label in other.labels]
    for name, tensor in weights.items():
        if name in body:
            tensor.copy_(theirs[name])
        elif len(tensor) == len(model.labels) and name in theirs:
            for here, there in known:
                tensor[here] = theirs[name][there]
    if model.gate:
        model.gate.voice.fetch()
    new = len(model.labels) - len(known)
    return (
        f"begins with the weights of {path}; labels it knows: {len(known)}, new: {new}. Accuracy means something "
        "only on clips that it has not learnt from, either"
    )


def without_training(settings: Any) -> Any:
    """Settings without those of learning."""
    if not isinstance(settings, Mapping):
        return settings
    return {key: without_training(value) for key, value in settings.items() if key not in TRAINING_KEYS}
