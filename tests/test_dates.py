"""The example of sequence to sequence: what its texts say, that rows do not see each other, and that it learns."""

import datetime

import pytest
import torch

from benchmarks import dates
from benchmarks.dates import FORMS, Translator, all_dates, encode, ordinal, share_right, spell, train, year_in_words


def test_dates_are_spelt_as_people_say_them():
    days = [ordinal(day) for day in (1, 2, 3, 5, 8, 9, 12, 13, 20, 21, 22, 30, 31)]
    assert days == ["first", "second", "third", "fifth", "eighth", "ninth", "twelfth", "thirteenth", "twentieth", "twenty first",
                    "twenty second", "thirtieth", "thirty first"]  # fmt: skip
    years = [year_in_words(year) for year in (1900, 1905, 1997, 2000, 2005, 2013, 2040)]
    assert years == ["nineteen hundred", "nineteen oh five", "nineteen ninety seven", "two thousand", "two thousand five",
                     "twenty thirteen", "twenty forty"]  # fmt: skip
    assert spell(datetime.date(1997, 3, 3), FORMS[2]) == "monday the third of march nineteen ninety seven"
    said = [spell(date, FORMS[0]) for date in all_dates()]
    assert len(set(said)) == len(said) == 73_049  # two centuries, each date in words of its own


def test_each_text_is_read_and_written_as_if_alone():
    torch.manual_seed(0)
    model = Translator(hidden=24).eval()
    texts = [spell(date, FORMS[row % len(FORMS)]) for row, date in enumerate(all_dates()[:9])]
    assert model.translate(texts) == [model.translate([text])[0] for text in texts]
    with pytest.raises(ValueError, match="unknown words: smarch; expected such as"):
        model.read(["the third of smarch two thousand"])


def test_what_it_writes_step_by_step_is_what_one_call_writes():
    torch.manual_seed(1)
    model = Translator(hidden=24).eval()
    texts = [spell(date, FORMS[1]) for date in all_dates()[:5]]
    told = encode(model.translate(texts))
    before = torch.cat([model.begin.expand(len(texts), 1, -1), told[:, :-1]], 1)
    assert torch.equal(model.writer(before, model.read(texts))[0].argmax(-1), told.argmax(-1))


def test_it_learns():
    model, unseen = train(steps=40, batch=16)
    texts, right = [spell(date, FORMS[0]) for date in unseen[:50]], [date.isoformat() for date in unseen[:50]]
    with torch.no_grad():
        assert float(model.cost(texts, right)) < 2.1 < 2.4 < float(Translator().cost(texts, right))


@pytest.mark.long
def test_unseen_dates_are_written_without_a_fault():
    model, unseen = train()
    assert all(share_right(model, unseen, form) >= 0.99 for form in FORMS) and len(dates.WORDS) > 60
