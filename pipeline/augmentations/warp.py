"""Sounds and features stretched: over time, and over frequency."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.media.sample import Span

EVEN_SHARE = 0.6  # of half the rate: up to here the frequency axis is stretched evenly (4800 of 8000 Hz in the paper)


def place_clips(x: Tensor, lengths: Tensor, factors: list[float], shifts: list[int]) -> tuple[Tensor, Tensor]:
    """Samples ``(B, N)`` of clips, each ``factors`` times as long (lower, if longer) and moved later by ``shifts``
    samples (earlier, if negative), and their lengths; zeros come in. The batch is as long as its longest clip before it
    is moved, and what is moved out of it is lost.

    Interpolation is linear; row by row, as a single gather takes twice as long.
    """
    sizes = [max(1, round(length * factor)) for length, factor in zip(lengths.tolist(), factors, strict=True)]
    width = max(sizes)
    y = x.new_zeros(len(x), width)
    for row, (length, size, shift) in enumerate(zip(lengths.tolist(), sizes, shifts, strict=True)):
        clip = x[row, :length]
        if size != length:
            clip = interpolate(clip[None, None], size, mode="linear")[0, 0]
        y[row, max(0, shift) : max(0, size + shift)] = clip[max(0, -shift) : max(0, width - shift)]
    ends = [min(width, size + max(0, shift)) for size, shift in zip(sizes, shifts, strict=True)]
    return y, torch.tensor(ends)


def move_spans(spans: list[Span] | None, factor: float, shift: int, length: int) -> list[Span] | None:
    """Spans stretched by ``factor``, then moved, as far as they are still inside."""
    if spans is None:
        return None
    placed = ((round(start * factor) + shift, round(end * factor) + shift, label) for start, end, label in spans)
    inside = ((max(0, start), min(length, end), label) for start, end, label in placed)
    return [(start, end, label) for start, end, label in inside if start < end]


def change_tempo(x: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Features ``(B, T, ...)`` of clips of ``old (B,)`` steps, played so that they last ``new`` steps: each step is the
    one of its time, and after a clip follows what followed it.
    """
    steps = torch.arange(x.shape[1] + int(new.max()) - int(old.max()))[None]
    old, new = old[:, None], new[:, None]
    index = torch.where(steps < new, steps * old // new, old + steps - new).clamp(max=x.shape[1] - 1).to(x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def warp_frequencies(x: Tensor, bands: Tensor, factors: Tensor, top: float) -> Tensor:
    """Features ``(B, T, F)`` of channels around ``bands (F,)`` Hz, as of vocal tracts ``factors (B, 1)`` times as
    short: what stood at a frequency stands ``factor`` times as high. ``top``: half the rate in Hz, which stays.

    Jaitly & Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", ICML workshop 2013, with the
    channels moved instead of their filters.
    """
    edge = EVEN_SHARE * top * factors.clamp(max=1)  # where the axis breaks, after the warp
    start = edge / factors  # and before
    source = torch.where(bands <= edge, bands / factors, top - (top - start) * (top - bands) / (top - edge))
    above = torch.searchsorted(bands, source).clamp(1, len(bands) - 1)
    share = ((source - bands[above - 1]) / (bands[above] - bands[above - 1])).clamp(0, 1)[:, None].to(x.dtype)
    above = above[:, None].expand(x.shape)
    return torch.lerp(x.gather(2, above - 1), x.gather(2, above), share)
