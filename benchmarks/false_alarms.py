"""How much does a model miss, and how often does it say something where nothing is?

    python benchmarks/false_alarms.py MODEL RECORDINGS... [--events STREAMS...] [gate=voice] [decoder.KEY=VALUE ...]

RECORDINGS (or folders of them) hold none of the model's events: what it finds there is false. STREAMS have their truth
beside them, NAME.csv with start, end, label in seconds: of their events, the share missed is counted (found: an answer
that begins in an event, or 0.2 s before it), with its interval at 95 % (Wilson). A line for each of some rates of false
alarms: the threshold, one for all labels, that finds most of those that keep to it, as counted here, without any
extrapolation; so it is the best that could have been chosen, not what a user gets. Then what a user gets: the model's
own decoder. Then the same for each label by itself. "below": the upper limit of the rate, at 95 % (Poisson): in h hours
no rate below 3 / h can be told from none. ``gate=``, ``gate.KEY=``: another gate than the model's own, as for infer.py.
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
from pipeline.decoders.decoder import merge_settings
from pipeline.measures.detection import find_recordings, run_recording
from pipeline.measures.metrics import COLLAR_SECONDS, count_alarms
from pipeline.measures.operating_point import LEVELS, RATES, Curves, describe_counts, measure_curves, upper_limit
from pipeline.measures.stream_output import detect_spans, run_stream
from pipeline.media.chunks import open_chunks
from pipeline.media.walk import list_files
from pipeline.model.classifier import load

MANY_RATES = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100)


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
    rows = [*lines("", curves, MANY_RATES)]
    false = sum(len(spans) for one in silent for spans in detect_spans(live, one).values())
    hits = sum(
        count_alarms(one.spans[index], spans, COLLAR_SECONDS * live.rate).hits
        for one in heard
        for index, spans in detect_spans(live, one).items()
    )
    rows.append(line("own decoder", "-", false, hits, curves))
    for row, label in enumerate(curves.labels):
        if curves.truths[row]:
            part = curves.hits[row : row + 1], curves.truths[row : row + 1], curves.false[row : row + 1]
            rows += lines(f"{label} ", Curves(*part, curves.hours, [label]), RATES)
    names = ", ".join(one.name for one in [*silent, *heard])
    report("false-alarms", ["", "threshold", "false", "an hour", "below", "found", "of", "missed", "95 %"], rows,
           f"{names}; {curves.hours:.3f} hours without events; model {model.parameter_count():,} parameters")  # fmt: skip


def lines(name, curves, rates):
    found, alarms = curves.hits.sum(0), curves.false.sum(0)
    for wanted in rates:
        kept = np.flatnonzero(alarms <= wanted * curves.hours)
        if len(kept):
            place = int(kept[found[kept].argmax()])
            title = f"{name}<= {wanted:g} an hour"
            yield line(title, f"{LEVELS[place]:.4f}", int(alarms[place]), int(found[place]), curves)


def line(name, threshold, false, hits, curves):
    row, hours = describe_counts(hits, int(curves.truths.sum()), false), curves.hours
    share, limits = "-", "-"
    if row["true"]:
        share, limits = f"{row['missed']:.1%}", "{:.1%} to {:.1%}".format(*row["interval"])
    rate, most = f"{false / hours:.1f}", f"{upper_limit(false, hours):.1f}"
    return [name, threshold, false, rate, most, hits, row["true"], share, limits]


if __name__ == "__main__":
    main()
