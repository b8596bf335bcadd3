"""The way from a source to the sinks: `python docs/figures/flow.py` writes docs/flow.svg."""

from pathlib import Path

from svg import FIXED, LEARNT, LINE, MEMORY, Svg

PARTS = [  # name, colour, what it hands on
    ("source", LINE, "chunks of\nany length"),
    ("extractor", FIXED, "features"),
    ("standardize", FIXED, "mean 0,\nspread 1"),
    ("encoder", LEARNT, "what the cells\nremember"),
    ("head", LEARNT, "a number for\neach label"),
    ("smoothing", FIXED, "posteriors"),
    ("decoder", FIXED, "events"),
    ("sinks", LINE, ""),
]
STAGES = range(1, 6)  # those that keep the law: their states are one value
STEP, TOP = 118, 56  # pixels


def draw() -> Svg:
    """The figure."""
    drawing = Svg(len(PARTS) * STEP, 200, "From a source through the chain of stages and the decoder to the sinks")
    for number, (name, colour, gives) in enumerate(PARTS):
        x = STEP * (number + 0.5)
        drawing.box(x, TOP, name, colour, 92, 34)
        for row, words in enumerate(gives.split("\n") if gives else []):
            drawing.text(x + STEP / 2, TOP - 38 + 14 * row - 7 * gives.count("\n"), words, size=12)
        if number + 1 < len(PARTS):
            drawing.line((x + 46, TOP), (x + STEP - 47, TOP))
        if number in STAGES:
            drawing.line((x - 14, 142), (x - 14, TOP + 18))
            drawing.line((x + 14, TOP + 17), (x + 14, 141))
    middle = STEP * (STAGES.start + STAGES.stop) / 2
    drawing.box(
        middle, 158, "state: goes in, comes out; hold it, copy it, batch it, write it down", MEMORY, 5 * STEP - 26, 32
    )
    drawing.text(STEP * 6.5, TOP + 38, "thresholds,", size=12)
    drawing.text(STEP * 6.5, TOP + 53, "no weights", size=12)
    return drawing


if __name__ == "__main__":
    draw().save(Path(__file__).resolve().parents[1] / "flow.svg")
