"""Pictures of docs/novelty.md and docs/autoencoder.md.

    python benchmarks/novelty_pictures.py WHITEN AUTOENCODER DATA

WHITEN and AUTOENCODER are runs of conf/experiment/novelty.yaml, the second with encoder=autoencoder; DATA as
../shared/data. Draws docs/novelty.png, the score of a stream over time, and docs/autoencoder.png: what the autoencoder
makes again of rain (validation rows) and of sounds that it has never heard.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib
import torch

matplotlib.use("Agg")
from matplotlib import pyplot

from pipeline.measures.detection import find_recordings, run_recording
from pipeline.measures.stream_output import detect_spans
from pipeline.media.chunks import read_chunk
from pipeline.model.classifier import load, on_device

STREAM, SECONDS = "sounds_0_snr20.flac", 60
CLIPS = "rain/fold3_*", "sea_waves/fold3_*", "dog/fold3_*", "rooster/fold3_*"


def draw_stream(model, data):
    (recording,) = find_recordings([str(data / "streams" / STREAM)])
    one, decoder = run_recording(model, recording), model.decoder()
    figure, axis = pyplot.subplots(figsize=(10, 3), layout="constrained")
    seconds = [(step + 1) * model.hop / model.rate for step in range(len(one.posteriors))]
    axis.plot(seconds, one.posteriors[:, 0], color="tab:blue", linewidth=0.8, label="score")
    axis.axhline(decoder.high[0], color="tab:red", linewidth=1, label="threshold")
    axis.axhline(decoder.low[0], color="tab:red", linewidth=1, linestyle=":", label="release")
    for spans, colour, low, high, label in (
        (one.spans[0], "tab:green", 1.02, 1.06, "true"),
        (detect_spans(model, one)[0], "tab:blue", 1.07, 1.11, "told"),
    ):
        for number, (start, end) in enumerate(spans / model.rate):
            axis.fill_between([start, end], low, high, color=colour, linewidth=0, label=label if not number else None)
    axis.set(xlim=(0, SECONDS), ylim=(0, 1.13), xlabel="seconds", ylabel="unusual")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(ROOT / "docs" / "novelty.png", dpi=100)


@torch.inference_mode()
def draw_codes(model, data):
    encoder = model.encoder
    figure, axes = pyplot.subplots(2, len(CLIPS), figsize=(10, 4), layout="constrained", sharex=True, sharey=True)
    for column, pattern in enumerate(CLIPS):
        parts, _ = read_chunk(sorted((data / "esc10").glob(pattern))[0], model.spec)
        x = on_device(model.pad(model.spec.stack([parts]), model.spec.ticks(parts)), model)
        features = model.encoder_input(model.extract(x))
        stretches = features.reshape(-1, encoder.hop, features.shape[2])
        again = encoder.decoded(encoder.code(stretches)).reshape(features.shape)
        error = float((features - again).square().mean())
        for axis, picture in zip(axes[:, column], (features, again), strict=True):
            axis.imshow(
                picture[0].T,
                origin="lower",
                aspect="auto",
                vmin=-3,
                vmax=3,
                extent=(0, features.shape[1] * model.extractor.hop / model.rate, 0, 40),
            )
        axes[0, column].set_title(f"{pattern.split('/')[0]}\nmean square of the error {error:.2f}", fontsize=9)
        axes[1, column].set_xlabel("seconds")
    axes[0, 0].set_ylabel("bands, heard")
    axes[1, 0].set_ylabel("bands, made again")
    figure.savefig(ROOT / "docs" / "autoencoder.png", dpi=100)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    data = Path(sys.argv[3])
    draw_stream(load(sys.argv[1]).for_streaming(), data)
    draw_codes(load(sys.argv[2]), data)


if __name__ == "__main__":
    main()
