"""A convolutional network on each picture: picture to vector."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torchvision
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.extractors import efficientnet
from pipeline.extractors.pixels import Pixels, Rate, Size
from pipeline.extractors.weights import read_weights
from pipeline.layers.precision import shorten_all
from pipeline.layers.stage import State, pieces
from pipeline.media.picture import Fit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect
LAST = ("fc", "classifier", "head", "heads")  # what torchvision calls the layers after the features
AT_ONCE = 64  # pictures


class FrameCNN(Pixels):
    """``(B, T, 3, H, W)`` in 0 ... 255 to ``(B, T, F)``; each picture on its own.

    ``backbone`` is ``small`` (four convolutions, group normalisation, mean over pixels), ``efficientnet_lite0``
    (``efficientnet.py``), or a network of torchvision.models without its classifier. Batch normalisation always uses
    its stored statistics: those of a batch would let a picture see its neighbours, and the future.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        rate: Rate = 10,
        height: Size = 112,
        width: Size = 112,
        how: Fit = "crop",
        backbone: str = "small",
        channels: PositiveInt = 24,
        weights: str | None = None,
        frozen: bool = False,
    ) -> None:
        """``channels`` of the first convolution of ``small``. ``weights``: a local file, torchvision's .pth or
        safetensors, only read when a training begins (they are stored with the model); of ``efficientnet_lite0`` a copy
        of its package's file, which is read otherwise. ``frozen``: they stay so.

        ConfigError if there is no such backbone, or if the size or the file does not fit it.
        """
        super().__init__(rate, height, width, how)
        self.frozen, self.weights = frozen, weights
        self.costly = frozen
        self.borrowed = efficientnet.WEIGHTS if backbone == "efficientnet_lite0" else None
        make: Callable[[], nn.Module] = partial(truncated, backbone)
        if backbone in ("small", "efficientnet_lite0"):
            make = efficientnet.lite0 if self.borrowed else partial(small, channels)
        self.net = make()
        with torch.device("meta"):
            try:
                self.out_shape = tuple(make().eval()(torch.zeros(1, 3, height, width)).flatten(1).shape[1:])
            except (AssertionError, RuntimeError) as error:  # each network complains in its own way
                raise ConfigError(
                    f"extractor.height, extractor.width: {backbone} cannot take pictures of {height}x{width} "
                    f"({error}); change them (224x224 fits most), or choose another extractor.backbone"
                ) from None
        self.net.requires_grad_(not frozen)
        # x / (255 std) - mean / std for a row of pixels at once: pixel by pixel torch takes five times as long
        mean, std = (efficientnet.MEAN, efficientnet.STD) if self.borrowed else (MEAN, STD)
        scale = torch.tensor(std).reciprocal()
        self.register_buffer("scale", (scale / 255).repeat(width), persistent=False)
        self.register_buffer("shift", (torch.tensor(mean) * -scale).repeat(width), persistent=False)

    def fetch(self) -> None:
        """Read ``weights``; those of the classifier that was taken off are left out."""
        if self.borrowed:
            efficientnet.fetch(self.net, self.weights)
            return
        if self.weights is None:
            return
        path = Path(self.weights).expanduser()
        found = {n: t for n, t in read_weights(path, "extractor.weights").items() if n.split(".")[0] not in LAST}
        own = self.net.state_dict()
        wrong = [name for name in own if name not in found or found[name].shape != own[name].shape]
        if wrong:
            raise ConfigError(
                f"extractor.weights: {self.weights} does not fit the backbone: no {wrong[0]} of its shape"
            )
        self.net.load_state_dict({name: found[name] for name in own})

    def train(self, mode: bool = True) -> Self:
        """Batch normalisation never trains."""
        super().train(mode)
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) or self.frozen:
                module.eval()
        return self

    def lower(self) -> None:
        """Convolve in bfloat16."""
        shorten_all(self.net)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        images = x.flatten(0, 1)
        y = torch.cat([self.vectors(part) for part in pieces(images, AT_ONCE, 0)])
        return y.view(*x.shape[:2], *self.out_shape), state

    def vectors(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to ``(N, F)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            y: Tensor = self.net(self.normalised(images)).flatten(1)
        return y

    def normalised(self, images: Tensor) -> Tensor:
        """Numbers as torchvision's weights expect them, with the channels last in memory."""
        rows = images.permute(0, 2, 3, 1).flatten(2).to(self.anchor.dtype)
        y = torch.addcmul(self.shift, rows, self.scale)
        return y.view(*y.shape[:2], -1, 3).permute(0, 3, 1, 2)


def small(channels: int) -> nn.Module:
    """Four strided convolutions; each halves the picture."""
    layers: list[nn.Module] = []
    before = 3
    for factor in (1, 2, 3, 4):
        after = channels * factor
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(1, after), nn.GELU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


def truncated(name: str) -> nn.Module:
    """A network of torchvision.models that ends in its features."""
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise ConfigError(
            f"extractor.backbone: {name!r} is neither 'small' nor 'efficientnet_lite0' nor in torchvision.models"
            f"{nearest(name, known)}"
        )
    # no second output for training alone
    plain = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    net: Any = torchvision.models.get_model(name, weights=None, **plain)
    last = [part for part in LAST if hasattr(net, part)]
    if not last:
        raise ConfigError(f"extractor.backbone: {name} has no classifier to take off; choose another")
    setattr(net, last[0], nn.Identity())
    module: nn.Module = net
    return module
