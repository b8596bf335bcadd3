"""The licences of weights that a model has from others: they travel with the model, in its run's folder."""

from pathlib import Path

from torch import nn

from pipeline.core.atomic import write_text
from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile


def write_licences(model: nn.Module, out: Path) -> None:
    """``out/licences/PACKAGE.txt`` for each package of which a part of the model has ``borrowed`` weights."""
    found: set[PackageFile] = {weights for part in model.modules() if (weights := getattr(part, "borrowed", None))}
    for weights in found:
        try:
            text = weights.inside(weights.licence, "path").read_text(encoding="utf-8")
        except (ConfigError, OSError):  # the user's own copy of the file was taken
            text = f"The text of the licence comes with the package {weights.package} {weights.version}.\n"
        (out / "licences").mkdir(exist_ok=True)
        note = f"model.safetensors contains {weights.credit}.\n\n{text}"
        write_text(out / "licences" / f"{weights.package}.txt", note)
