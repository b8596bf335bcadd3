"""How much does a model miss, and how often does it say something where nothing is?

    python benchmarks/false_alarms.py MODEL RECORDINGS... [--events STREAMS...] [gate=voice] [decoder.KEY=VALUE ...]

RECORDINGS (or folders of them) hold none of the model's events: what it finds there is false. STREAMS have their truth
beside them, NAME.csv with start, end, label in seconds: of their events, the share found is counted (an answer that
begins in an event, or 0.2 s before it). A line for each of some rates of false alarms: the threshold, one for all
labels, that finds most of those that keep to it, as counted here, without any extrapolation; so it is the best that
could have been chosen, not what a user gets. The last line is what a user gets: the model's own decoder. "below": the
upper limit of the rate, at 95 %. ``gate=``, ``gate.KEY=``: another gate than the model's own, as for infer.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from table import report  # beside this file

from conf.command_line import compose_config
from conf.launch import to_plain
from pipeline.measures.detection import find_recordings, run_recording
from pipeline.measures.metrics import COLLAR_SECONDS, count_alarms
from pipeline.measures.operating_point import LEVELS, measure_curves, upper_limit
from pipeline.measures.stream_output import detect_spans, run_stream
from pipeline.media.chunks import open_chunks
from pipeline.media.walk import list_files
from pipeline.model.classifier import load
from pipeline.model.decoder import merge_settings

RATES = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)


def main():
    torch.set_num_threads(1)
    settings = [argument for argument in sys.argv[2:] if argument.startswith("decoder.")]
    gate = [argument for argument in sys.argv[2:] if argument.startswith(("gate=", "gate."))]
    rest = [argument for argument in sys.argv[2:] if argument not in [*settings, *gate]]
    at = rest.index("--events") if "--events" in rest else len(rest)
    files = list_files(rest[:at], "RECORDINGS")
    if not files:
        sys.exit(__doc__)
    given = OverridesParser.create().parse_overrides(settings)
    model = load(sys.argv[1])
    if gate:
        model = model.with_gate(to_plain(compose_config("infer", gate))["gate"])
    changes = {one.key_or_group.removeprefix("decoder."): one.value() for one in given}
    model.config["decoder"] |= merge_settings(model.config["decoder"], changes, model.labels)
    live = model.for_streaming()
    silent = [run_stream(live, open_chunks(file, live.spec)[1], [[] for _ in live.labels], file.name) for file in files]
    heard = [run_recording(live, one) for one in find_recordings(rest[at + 1 :])] if rest[at + 1 :] else []
    curves = measure_curves(live, heard, silent)
    found, alarms = curves.hits.sum(0), curves.false.sum(0)
    rows = []
    for wanted in RATES:
        kept = np.flatnonzero(alarms <= wanted * curves.hours)
        if len(kept):
            place = int(kept[found[kept].argmax()])
            name = f"<= {wanted:g} an hour"
            rows.append(line(name, f"{LEVELS[place]:.4f}", int(alarms[place]), int(found[place]), curves))
    false = sum(len(spans) for one in silent for spans in detect_spans(live, one).values())
    hits = sum(
        count_alarms(one.spans[index], spans, COLLAR_SECONDS * live.rate).hits
        for one in heard
        for index, spans in detect_spans(live, one).items()
    )
    rows.append(line("own decoder", "-", false, hits, curves))
    names = ", ".join(one.name for one in [*silent, *heard])
    report("false-alarms", ["", "threshold", "false", "an hour", "below", "found", "of", "share"], rows,
           f"{names}; {curves.hours:.3f} hours without events; model {model.parameter_count():,} parameters")  # fmt: skip


def line(name, threshold, false, hits, curves):
    truths, hours = int(curves.truths.sum()), curves.hours
    share = f"{hits / truths:.1%}" if truths else "-"
    return [name, threshold, false, f"{false / hours:.1f}", f"{upper_limit(false, hours):.1f}", hits, truths, share]


if __name__ == "__main__":
    main()
