"""Fine-tuning: training begins with the weights of a trained model, where few clips could not teach them."""

from torch import Tensor

from pipeline.errors import ConfigError, ModelError
from pipeline.model import Classifier, load
from pipeline.training.run import differences

HEARD = ("extractor", "cell")  # the same weights mean something else with other settings of these


def begin(model: Classifier, path: str) -> str:
    """Give ``model`` the weights of the one at ``path`` (a run's folder or its file), and say so in words.

    The head's rows go to the labels that both have; of other labels they stay as they were drawn. The normalisation
    comes along, as the weights are used to it. ConfigError if the two do not hear the same features or the encoder's
    weights have other shapes; ModelError if there is no model.
    """
    try:
        other = load(path)
    except ModelError as error:
        raise ModelError(str(error).replace("checkpoint=", "trainer.pretrained=", 1)) from None
    for part in HEARD:
        if found := differences(other.config[part], model.config[part], part):
            raise ConfigError(f"trainer.pretrained: {path} is of another {part}: {found}; set what it was")
    weights, theirs = model.state_dict(), other.state_dict()
    body = {name for name in weights.keys() | theirs.keys() if not name.startswith("head.")}
    if odd := sorted(n for n in body if n not in weights or n not in theirs or weights[n].shape != theirs[n].shape):
        found = differences(other.config["encoder"], model.config["encoder"], "encoder") or odd[0]
        raise ConfigError(f"trainer.pretrained: {path} is of another encoder: {found}; set what it was")
    known = [(here, other.labels.index(label)) for here, label in enumerate(model.labels) if label in other.labels]
    for name, tensor in weights.items():
        if name in body:
            tensor.copy_(theirs[name])
        elif len(tensor) == len(model.labels) and name in theirs:
            rows(tensor, theirs[name], known)
    new = len(model.labels) - len(known)
    return f"begins with the weights of {path}; labels it knows: {len(known)}, new: {new}"


def rows(here: Tensor, there: Tensor, pairs: list[tuple[int, int]]) -> None:
    """Copy rows, pair by pair."""
    for own, other in pairs:
        here[own] = there[other]
