"""Decoder and event measures, against plain loops and worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import Decoder, Event
from pipeline.metrics import classification, confusion, match_events

LABELS = ["background", "a", "b"]


def decoder(**settings):
    plain = {"threshold": 0.6, "release": 0.4, "minimum": 0.0, "refractory": 0.0}
    return Decoder(LABELS, hop=10, rate=1000, **plain | settings)


def rows(a):
    return np.array([[0.0, score, 0.0] for score in a], np.float32)


def test_hysteresis():
    found = decoder()
    assert found.decode(rows([0.1, 0.5, 0.7, 0.5, 0.45, 0.3, 0.7])) == [Event("a", 20, 50, pytest.approx(0.7))]
    assert found.close() == [Event("a", 60, 70, pytest.approx(0.7))]


def test_short_events_are_dropped_and_refractory_time_is_kept():
    found = decoder(minimum=0.02)
    assert found.decode(rows([0.9, 0.0, 0.9, 0.8, 0.0])) == [Event("a", 20, 40, pytest.approx(0.9))]
    found = decoder(refractory=0.03)
    events = found.decode(rows([0.9, 0.0, 0.9, 0.9, 0.9, 0.0]))
    assert [(event.start, event.end) for event in events] == [(0, 10), (40, 50)]


def test_background_makes_no_events():
    found = decoder()
    assert found.decode(np.array([[0.9, 0.0, 0.0]] * 5, np.float32)) + found.close() == []


def test_release_above_threshold_is_refused():
    with pytest.raises(ValueError, match=r"decoder\.release"):
        decoder(release=0.7)


@given(st.lists(st.sampled_from([0.1, 0.5, 0.7, 0.9]), max_size=30), st.lists(st.integers(0, 7), max_size=8))
def test_blocks_do_not_matter(scores, sizes):
    whole = decoder(refractory=0.02, minimum=0.02)
    expected = whole.decode(rows(scores).reshape(-1, 3)) + whole.close()
    parts, found, at = decoder(refractory=0.02, minimum=0.02), [], 0
    for size in [*sizes, len(scores)]:
        found += parts.decode(rows(scores[at : at + size]).reshape(-1, 3))
        at += size
    assert found + parts.close() == expected


def test_classification_is_sklearns():
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    truth, answer = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    ours = classification(truth, answer, list("abcd"))
    assert ours["confusion"] == confusion_matrix(truth, answer).tolist() == confusion(truth, answer, 4).tolist()
    theirs = precision_recall_fscore_support(truth, answer)
    for index, label in enumerate("abcd"):
        row = ours["classes"][label]
        for name, figures in zip(("precision", "recall", "f1", "support"), theirs):
            assert row[name] == pytest.approx(figures[index])
    assert ours["accuracy"] == pytest.approx((truth == answer).mean())


def test_event_matching():
    truth = [(1.0, 2.0, "a"), (3.0, 4.0, "a"), (5.0, 6.0, "b")]
    answer = [(1.1, 2.1, "a"), (1.15, 2.0, "a"), (3.5, 4.0, "a"), (5.0, 6.7, "b")]
    found = match_events(truth, answer)
    assert (found["a"].hits, found["a"].truths, found["a"].answers) == (1, 2, 3)
    assert found["b"].hits == 0  # its end is off by more than half its length
    assert match_events(truth, answer, offset=False)["b"].hits == 1
    assert found["micro"].scores == pytest.approx((1 / 4, 1 / 3, 2 / 7))


def test_event_matching_is_the_best_assignment():
    truth = [(1.0, 2.0, "a"), (1.3, 2.0, "a")]
    answer = [(1.15, 2.0, "a"), (0.9, 2.0, "a")]  # the first fits both, the second only the first
    assert match_events(truth, answer)["a"].hits == 2


def test_nothing_to_count():
    assert match_events([], [])["micro"].scores == (0.0, 0.0, 0.0)
    assert classification([], [], ["a", "b"])["accuracy"] == 0.0
