"""How good are the events on long streams? Event-based F1 with a 200-ms collar, class-wise and micro.

    python benchmarks/events.py MODEL.safetensors STREAM.flac|mp4 [more streams] [decoder.KEY=VALUE ...]

The decoder's settings are written as for infer.py: decoder.threshold=0.7, 'decoder.threshold={yes: 0.8, no: 0.7}'.

Each stream has its truth beside it, NAME.csv with start, end, label in seconds. An answer is a hit if its label is
right, its onset is within 200 ms, and its end within the greater of 200 ms and half the true length (as sed_eval does
by default with percentage_of_length 0.5). The line "onset only" drops the condition on the end, "1 s onset" also
widens the collar: a classifier trained on clips without times knows what was said, but not when it began. True events
of the model's background labels (which by its own settings never make events) are left out.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from table import report  # beside this file

from pipeline.events import changed
from pipeline.metrics import match_events
from pipeline.model import load
from pipeline.stream import Stream
from pipeline.tracks import open_chunks


def heard(model, path, settings):
    decoder = model.decoder(**changed(model.config["decoder"], settings, model.labels))
    stream = Stream(model, max(1, round(0.1 * model.rate / model.hop)), decoder)
    _, chunks = open_chunks(path, model.intake)
    events = [event for chunk in chunks for event in stream.push(chunk)] + stream.close()
    return [(event.start / model.rate, event.end / model.rate, event.label) for event in events]


def truth(path):
    with open(Path(path).with_suffix(".csv"), newline="") as file:
        return [(float(row["start"]), float(row["end"]), row["label"]) for row in csv.DictReader(file)]


def main():
    torch.set_num_threads(1)
    given = OverridesParser.create().parse_overrides([argument for argument in sys.argv[2:] if "=" in argument])
    settings = {one.key_or_group.removeprefix("decoder."): one.value() for one in given}
    paths = [argument for argument in sys.argv[2:] if "=" not in argument]
    if not paths:
        sys.exit(__doc__)
    model = load(sys.argv[1]).live
    for path in paths:
        silent = model.config["decoder"]["background"]
        wanted = [span for span in truth(path) if span[2] in model.labels and span[2] not in silent]
        found = heard(model, path, settings)
        rows = []
        matches = match_events(wanted, found)
        variants = {"micro, onset only": {"offset": False}, "micro, onset only, 1 s": {"offset": False, "collar": 1.0}}
        matches |= {name: match_events(wanted, found, **how)["micro"] for name, how in variants.items()}
        for name, match in matches.items():
            rows.append([name, match.truths, match.answers, match.hits, *(f"{value:.3f}" for value in match.scores)])
        report(f"events-{Path(path).stem}", ["label", "true", "found", "hits", "precision", "recall", "F1"], rows,
               f"event-based, 200-ms collar, offset within max(200 ms, 50 %); model {model.parameter_count():,} parameters")  # fmt: skip


if __name__ == "__main__":
    main()
