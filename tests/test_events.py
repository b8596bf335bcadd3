"""Decoder and event measures, against plain loops and worked examples."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.core.build import build
from pipeline.core.errors import ConfigError
from pipeline.decoders.decoder import Decoder, Event, merge_settings
from pipeline.measures.metrics import Alarms, Matches, count_alarms, match_alarms, match_events
from pipeline.tasks.classification import classification_report

LABELS = ["background", "a", "b"]
HOP = 10  # ticks, of which there are 1000 a second


def decoder(**settings):
    plain = {"threshold": 0.6, "release": 0.4, "minimum": 0.0, "refractory": 0.0}
    return Decoder(LABELS, hop=HOP, rate=1000, **plain | settings)


def rows(a):
    return np.array([[0.0, score, 0.0] for score in a], np.float32)


def event(label, start, end, score, peak, **more):
    return Event(label, start, end, pytest.approx(score), peak, **more)


def test_hysteresis():
    found = decoder()
    assert found.decode(rows([0.1, 0.5, 0.7, 0.8, 0.45, 0.3, 0.7])) == [event("a", 20, 50, 0.8, 30)]
    assert found.open_events() == [event("a", 60, 70, 0.7, 60, final=False)]
    assert found.close() == [event("a", 60, 70, 0.7, 60)]


def test_a_short_pause_is_bridged_and_a_long_one_is_not():
    found = decoder(merge=0.02)
    assert found.decode(rows([0.7, 0.0, 0.5, 0.9, 0.0, 0.0])) == []  # 0.5 alone would not open it again
    assert found.open_events() == [event("a", 0, 40, 0.9, 30, final=False)]
    assert found.decode(rows([0.0])) == [event("a", 0, 40, 0.9, 30)]
    assert found.decode(rows([0.7, 0.0, 0.0, 0.0, 0.7])) == [event("a", 70, 80, 0.7, 70)]
    assert found.close() == [event("a", 110, 120, 0.7, 110)]


def test_time_that_is_passed_over_counts_as_a_pause():
    found = decoder(merge=0.05)
    assert found.decode(rows([0.9, 0.0])) == []
    found.pass_over(3)
    assert found.decode(rows([0.9, 0.0])) == []
    found.pass_over(30)
    assert found.decode(rows([0.8])) == [event("a", 0, 60, 0.9, 0)]
    assert found.close() == [event("a", 370, 380, 0.8, 370)]


def test_levels_of_each_class():
    found = decoder(threshold={"b": 0.9}, release=None, background=["background"])
    scores = np.array([[0, 0.7, 0.7], [0, 0.41, 0.9], [0, 0.3, 0.62], [0, 0, 0.5]], np.float32)
    assert found.decode(scores) == [event("a", 0, 20, 0.7, 0), event("b", 10, 30, 0.9, 10)]
    printed = decoder(threshold=0.7, release=0.7)
    assert len(printed.decode(rows([0.7, 0.0]))) == 1, "what is shown as 0.7 reaches 0.7, in any precision"


def test_background_makes_no_events():
    found = decoder()
    assert found.decode(np.array([[0.9, 0.0, 0.0]] * 5, np.float32)) + found.close() == []


@pytest.mark.parametrize(("settings", "message"), [
    ({"release": 0.7}, r"decoder\.release \(0\.7\) must not be above decoder\.threshold \(0\.6\), here of 'a'"),
    ({"threshold": {"a": 0.3}}, r"decoder\.release \(0\.4\) .* \(0\.3\), here of 'a'"),
    ({"threshold": {"bb": 0.3}}, r"decoder\.threshold\.bb: no such label; did you mean 'b'"),
    ({"release": {"a": 1.3}}, r"decoder\.release\.a: got 1\.3; expected a posterior, 0 to 1"),
    ({"threshold": 1.3}, r"decoder\.threshold: got 1\.3; input should be less than or equal to 1"),
    ({"threshold": {"a": "much"}}, r"decoder\.threshold: got \{'a': 'much'\}; input should be a valid number"),
    ({"merge": -1}, r"decoder\.merge: got -1"),
    ({"threshold": [["a", 0.7], ["a", 0.8]]}, r"expected each label once"),
    ({"threshold": [["a", 0.7, 1]]}, r'expected pairs of a label and a posterior, \[\["a,b",0\.7\]'),
    ({"threshold": [[None, 0.7]]}, r"got \[\[None, 0\.7\]\]; .*expected pairs"),
    ({"threshold": [0.7, 0.8]}, r"expected pairs"),
    ({"threshold": [["bb", 0.7]]}, r"decoder\.threshold\.bb: no such label; did you mean 'b'"),
    ({"release": [["a", 1.3]]}, r"decoder\.release\.a: got 1\.3"),
    ({"threshold": [["a", "much"]]}, r"input should be a valid number"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    config = {"_target_": "pipeline.decoders.decoder.Decoder", "threshold": 0.6, "release": 0.4} | settings
    with pytest.raises(ConfigError, match=message):
        build(config, Decoder, at="decoder", labels=LABELS, hop=HOP, rate=1000)


@pytest.mark.parametrize(("stored", "given", "found"), [
    ({"threshold": 0.5}, {"threshold": None, "merge": 0.2}, {"merge": 0.2}),
    ({"threshold": 0.5}, {"threshold": 0.8}, {"threshold": 0.8}),
    ({"threshold": 0.5}, {"threshold": {"a": 0.8}}, {"threshold": {"a": 0.8, "b": 0.5}}),
    ({"threshold": {"b": 0.7}}, {"threshold": {"a": 0.8}}, {"threshold": {"a": 0.8, "b": 0.7}}),
    ({}, {"release": {"a": 0.1}}, {"release": {"a": 0.1}}),
    ({}, {"release": [[1, 0.1]]}, {"release": {"1": 0.1}}),
    ({"threshold": [["b", 0.7]]}, {"threshold": [["a", 0.8]]}, {"threshold": {"a": 0.8, "b": 0.7}}),
    ({"background": ["a"]}, {"background": ["b"]}, {"background": ["b"]}),
])  # fmt: skip
def test_stored_settings_are_changed_label_by_label(stored, given, found):
    assert merge_settings(stored, given, "ab") == found


STEPS = st.integers(0, 4).map(lambda steps: steps * HOP / 1000)
SETTINGS = st.fixed_dictionaries({"minimum": STEPS, "merge": STEPS, "refractory": STEPS})
SCORES = st.lists(st.sampled_from([0.1, 0.5, 0.7, 0.9]), max_size=40)
SIZES = st.lists(st.integers(0, 7), max_size=8)


def spans(scores, minimum, merge, refractory):
    """Start and end step of the events of one class, in another way: from the stretches above the release in a whole
    array. No state, no steps.
    """
    scores = np.array(scores)
    stretches, kept, last, free = ndimage.label(scores >= 0.4)[0], [], None, 0

    def done():
        long = last is not None and last[1] - last[0] >= round(minimum * 100)
        return ([last], last[1] + round(refractory * 100)) if long else ([], free)

    for number in range(1, stretches.max(initial=0) + 1):
        inside = np.flatnonzero(stretches == number)
        loud = inside[scores[inside] >= 0.6]
        if not len(loud):
            continue
        if last is not None and loud[0] - last[1] <= round(merge * 100):
            last = (last[0], inside[-1] + 1)
            continue
        more, free = done()
        kept, last = kept + more, None
        loud = loud[loud >= free]
        if len(loud):
            last = (loud[0], inside[-1] + 1)
    return kept + done()[0]


@given(SCORES, SETTINGS)
def test_events_are_those_of_another_reading_of_the_rules(scores, settings):
    found = decoder(**settings)
    events = found.decode(rows(scores).reshape(-1, 3)) + found.close()
    assert [(event.start // HOP, event.end // HOP) for event in events] == spans(scores, **settings)
    for event in events:
        inside = np.float32(scores[event.start // HOP : event.end // HOP])
        # A bridged pause has nothing that could be the best.
        assert event.score == inside.max() and event.peak == event.start + HOP * int(inside.argmax())


@given(st.lists(st.tuples(*[st.sampled_from([0.1, 0.5, 0.7, 0.9])] * 2), max_size=40), SIZES, SETTINGS)
def test_blocks_do_not_matter_and_a_snapshot_goes_on_where_it_was(scores, sizes, settings):
    posteriors = np.array([[0.0, *pair] for pair in scores], np.float32).reshape(-1, 3)
    whole = decoder(**settings)
    expected = whole.decode(posteriors) + whole.close()
    parts, found, shown, at = decoder(**settings), [], [], 0
    for size in [*sizes, len(scores)]:
        found += parts.decode(posteriors[at : at + size])
        shown += parts.open_events()
        at += size
        held = json.loads(json.dumps(parts.snapshot()))
        parts = decoder(**settings)
        parts.restore(held)
        assert parts.snapshot() == held
    assert found + parts.close() == expected
    # Whatever was shown while it was open has become final, at the place where it was shown.
    assert {(event.label, event.start) for event in shown} <= {(event.label, event.start) for event in expected}
    assert all(not event.final for event in shown) and all(event.final for event in expected)


@pytest.mark.parametrize("wrong", [
    {},
    {"step": 1, "open": {}},
    {"step": 1.5, "open": {}, "free": {}},
    {"step": 1, "open": [], "free": {}},
    {"step": 1, "open": {"c": [0, 0.5, 0, None]}, "free": {}},
    *({"step": 9, "open": {"a": span}, "free": {}} for span in ([0, 0.5], [0, 0.5, -1, None])),
    *({"step": 9, "open": {"a": [3, score, 4, None]}, "free": {}} for score in ("high", np.nan, 2.0, True, None)),
])  # fmt: skip
def test_what_is_no_snapshot_is_refused_and_changes_nothing(wrong):
    found = decoder()
    found.decode(rows([0.9]))
    before = found.snapshot()
    with pytest.raises(ValueError, match="no snapshot of a decoder"):
        found.restore(wrong)
    assert found.snapshot() == before


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda span: (span[0], sum(span))), max_size=6)


@given(SPANS, SPANS, st.integers(0, 3))
def test_false_alarms_are_those_of_a_plain_loop(truth, answer, collar):
    def right(one, other):
        shared = min(one[1], other[1]) - max(one[0], other[0])
        return one[0] - collar <= other[0] < one[1] and shared > 0 and shared >= 0.1 * (other[1] - other[0])

    found = count_alarms(np.array(truth, int).reshape(-1, 2), np.array(answer, int).reshape(-1, 2), collar)
    hits = sum(any(right(t, a) for a in answer) for t in truth)
    false = sum(not any(right(t, a) for t in truth) for a in answer)
    assert found == Alarms(hits, len(truth), false)
    pairs = {(t, a) for t, one in enumerate(truth) for a, other in enumerate(answer) if right(one, other)}
    spans = (np.array(rows, int).reshape(-1, 2) for rows in (truth, answer))
    assert set(zip(*(places.tolist() for places in match_alarms(*spans, collar)))) == pairs


def test_an_answer_that_never_ends_finds_nothing_however_much_is_true():
    half = np.array([(n * 20, n * 20 + 10) for n in range(50)])  # true half of the time
    assert count_alarms(half, np.array([(0, 1000)]), 2) == Alarms(0, 50, 1)
    assert count_alarms(half, np.array([(0, 30)]), 2) == Alarms(1, 50, 0)  # begins rightly, and is a little late to end
    assert count_alarms(half, half + 3, 2) == Alarms(50, 50, 0)


def test_classification_is_sklearns():
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    truth, answer = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    ours = classification_report(truth, answer, list("abcd"))
    assert ours["confusion"] == confusion_matrix(truth, answer).tolist()
    theirs = precision_recall_fscore_support(truth, answer)
    for index, label in enumerate("abcd"):
        row = ours["classes"][label]
        for name, figures in zip(("precision", "recall", "f1", "support"), theirs):
            assert row[name] == pytest.approx(figures[index])
    assert ours["accuracy"] == pytest.approx((truth == answer).mean())


def test_event_matching():
    truth = [(1.0, 2.0, "a"), (3.0, 4.0, "a"), (5.0, 6.0, "b")]
    answer = [(1.1, 2.1, "a"), (1.15, 2.0, "a"), (3.5, 4.0, "a"), (5.0, 6.7, "b")]
    found, total = match_events(truth, answer)
    assert (found["a"].hits, found["a"].truths, found["a"].answers) == (1, 2, 3)
    assert found["b"].hits == 0  # its end is off by more than half its length
    assert match_events(truth, answer, offset=False)[0]["b"].hits == 1
    assert total.scores == pytest.approx((1 / 4, 1 / 3, 2 / 7))


def best_by_trying(allowed, row=0, taken=frozenset()):
    """Size of the greatest matching: every way is tried."""
    if row == len(allowed):
        return 0
    ways = [best_by_trying(allowed, row + 1, taken)]
    ways += [1 + best_by_trying(allowed, row + 1, taken | {column}) for column, ok in enumerate(allowed[row])
             if ok and column not in taken]  # fmt: skip
    return max(ways)


FIFTHS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9), st.sampled_from("ab")), max_size=6)


@given(FIFTHS, FIFTHS, st.sampled_from([0.0, 0.2, 0.5]), st.booleans())
def test_event_matching_is_that_of_trying_every_way(truth, answer, collar, offset):
    def spans(rows):
        return [(start / 10, (start + length) / 10, label) for start, length, label in rows]

    def fits(one, other):
        slack = max(collar, 0.5 * (one[1] - one[0]))
        return abs(one[0] - other[0]) <= collar and (not offset or abs(one[1] - other[1]) <= slack)

    truth, answer = spans(truth), spans(answer)
    found, total = match_events(truth, answer, collar, offset=offset)
    expected = {}
    for label in {span[2] for span in truth + answer}:
        wanted, given = ([span for span in rows if span[2] == label] for rows in (truth, answer))
        hits = best_by_trying([[fits(one, other) for other in given] for one in wanted])
        expected[label] = Matches(hits, len(wanted), len(given))
    assert found == expected
    sums = (sum(getattr(one, key) for one in expected.values()) for key in ("hits", "truths", "answers"))
    assert total == Matches(*sums)


def test_thousands_of_dense_events_are_matched():
    """Each answer may count for two events, so that a greedy choice ends in a chain through all of them."""
    truth = [(0.3 * n, 0.3 * n + 0.15, "a") for n in range(20_000)]
    answer = [(start + 0.16, end + 0.16, "a") for start, end, _ in truth]
    assert match_events(truth, answer)[1] == Matches(20_000, 20_000, 20_000)
    assert match_events(truth, answer[::-1], offset=False)[1].hits == 20_000


def test_a_decoder_of_one_label_has_the_others_settings():
    whole = decoder(threshold={"a": 0.9, "b": 0.7}, release=0.5, minimum=0.02, merge=0.03, refractory=0.05)
    posteriors = np.random.default_rng(0).random((400, 3)).astype(np.float32)
    events = whole.decode(posteriors) + whole.close()
    for index in (1, 2):
        alone = whole.for_label(index)
        mine = [one for one in events if one.label == LABELS[index]]
        assert alone.decode(posteriors[:, index : index + 1]) + alone.close() == mine
    other = whole.for_label(2, 0.8, 0.6)
    assert other.high.tolist() == pytest.approx([0.8]) and other.low.tolist() == pytest.approx([0.6])
    assert other.refractory == 5 and whole.high[2] == pytest.approx(0.7)


def test_nothing_to_count():
    assert match_events([], [])[1].scores == (0.0, 0.0, 0.0)
    assert classification_report([], [], ["a", "b"])["accuracy"] == 0.0
