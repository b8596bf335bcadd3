"""How good are the events on long streams? Event-based F1 with a 200-ms collar, class-wise and micro.

    python benchmarks/events.py MODEL.safetensors STREAM.flac|mp4 [more streams] [decoder.KEY=VALUE ...]

The decoder's settings are written as for infer.py: decoder.threshold=0.7, 'decoder.threshold={yes: 0.8, no: 0.7}'.

Each stream has its truth beside it, NAME.csv with start, end, label in seconds. An answer is a hit if its label is
right, its onset is within 200 ms, and its end within the greater of 200 ms and half the true length (as sed_eval does
by default with percentage_of_length 0.5). The line "onset only" drops the condition on the end, "1 s onset" also
widens the collar: a classifier trained on clips without times knows what was said, but not when it began. True events
of the model's background labels (which by its own settings never make events) are left out. The last line, with the
model's own decoder, is what train.py puts into metrics.json with streams=... (see pipeline/measures/detection.py).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from table import report  # beside this file

from pipeline.decoders.decoder import merge_settings
from pipeline.measures.detection import evaluate_outputs, find_recordings, run_recording
from pipeline.measures.metrics import match_events
from pipeline.model.classifier import load


def heard(model, one, settings):
    decoder = model.decoder(**merge_settings(model.config["decoder"], settings, model.labels))
    events = decoder.decode(one.posteriors) + decoder.close()
    return [(event.start / model.rate, event.end / model.rate, event.label) for event in events]


def main():
    torch.set_num_threads(1)
    given = OverridesParser.create().parse_overrides([argument for argument in sys.argv[2:] if "=" in argument])
    settings = {one.key_or_group.removeprefix("decoder."): one.value() for one in given}
    paths = [argument for argument in sys.argv[2:] if "=" not in argument]
    if not paths:
        sys.exit(__doc__)
    model = load(sys.argv[1]).for_streaming()
    for recording in find_recordings(paths):
        audible = [model.labels[index] for index in model.decoder().audible]
        wanted = [span for span in recording.events if span[2] in audible]
        one = run_recording(model, recording)
        found = heard(model, one, settings)
        rows = []
        matches, total = match_events(wanted, found)
        variants = {"micro, onset only": {"offset": False}, "micro, onset only, 1 s": {"offset": False, "collar": 1.0}}
        others = [(name, match_events(wanted, found, **how)[1]) for name, how in variants.items()]
        for name, match in [*matches.items(), ("micro", total), *others]:
            rows.append([name, match.truths, match.answers, match.hits, *(f"{value:.3f}" for value in match.scores)])
        report(f"events-{recording.path.stem}", ["label", "true", "found", "hits", "precision", "recall", "F1"], rows,
               f"event-based, 200-ms collar, offset within max(200 ms, 50 %); model {model.parameter_count():,} parameters")  # fmt: skip
        print(f"false alarms an hour, misses, delays in seconds: {told(evaluate_outputs(model, [one]))}")


def told(figures):
    return {key: figures[key] for key in ("false_an_hour", "missed", "miss_at", "latency")}


if __name__ == "__main__":
    main()
