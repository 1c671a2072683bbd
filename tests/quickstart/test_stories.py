import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.quickstart.stories import GAINS, LOSSES, NAMES, NOUNS, CannotDo, Change, Story, draw, easier, harder, parse

SEEDS = st.integers(0, 2**32)
STEPS = st.integers(1, 6)


@given(SEEDS, STEPS)
def test_parse_inverts_text(seed: int, steps: int) -> None:
    story = draw(random.Random(seed), steps)
    assert parse(story.text) == story
    assert len(story.changes) == steps


@given(SEEDS, STEPS)
def test_counts_are_never_negative(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    story = draw(rng, steps)
    assert min(story.counts) >= 0
    assert min(harder(story, rng).counts) >= 0


@given(SEEDS, STEPS)
def test_solution_adds_up(seed: int, steps: int) -> None:
    story = draw(random.Random(seed), steps)
    count = story.start
    sums, _, answer = story.solution.partition(" #### ")
    for change, written in zip(story.changes, sums.split(", "), strict=True):
        sign = "+" if change.form in GAINS else "-"
        result = count + change.amount if sign == "+" else count - change.amount
        assert written == f"{count}{sign}{change.amount}={result}"
        count = result
    assert answer == str(count) == str(story.answer)


@given(SEEDS, STEPS)
def test_harder_inserts_one_change(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    story = draw(rng, steps)
    longer = harder(story, rng)
    places = range(len(longer.changes))
    assert any(longer.changes[:place] + longer.changes[place + 1 :] == story.changes for place in places)
    assert (longer.name, longer.noun, longer.start) == (story.name, story.noun, story.start)


@given(SEEDS, st.integers(2, 6))
def test_easier_removes_one_change(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    story = draw(rng, steps)
    shorter = easier(story, rng)
    places = range(len(story.changes))
    assert any(story.changes[:place] + story.changes[place + 1 :] == shorter.changes for place in places)
    assert parse(shorter.text) == shorter


def test_easier_shrinks_a_single_change_down_to_one() -> None:
    rng, story = random.Random(0), Story("Mia", "cards", 7, (Change(GAINS[0], 5),))
    assert easier(story, rng).changes[0].amount < 5
    with pytest.raises(CannotDo, match="single change by 1"):
        easier(Story("Mia", "cards", 7, (Change(GAINS[0], 1),)), rng)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("What is the capital of France?", "not the opening"),
        ("Mia has 3 cards. How many cards now?", "not the opening"),
        ("Mia has 3 cards. Mia buys 2 more. How many coins now?", "not the question"),
        ("Mia has 3 cards. Mia buys 2 more. How many cards does Ben have?", "not the question"),
        ("Mia has 3 cards. Mia eats 2 more. How many cards now?", "Mia eats 2 more."),
        ("Mia has 3 cards. Ben buys 2 more. How many cards now?", "Ben buys 2 more."),
        ("Mia has 3 cards. Mia gives 4 away. How many cards now?", "less than no cards: 3-4=-1"),
        ("", "not the opening"),
    ],
)
def test_other_texts_are_rejected_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(CannotDo, match=said):
        parse(text)


def test_unknown_names_and_nouns_are_parsed() -> None:
    assert parse("Zbigniew has 3 trombones. Zbigniew sells 1 again. How many trombones now?").answer == 2


def test_vocabulary_is_distinct_and_fully_used() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 60
    assert len(set(NOUNS)) == len(NOUNS) >= 80
    rng = random.Random(0)
    drawn = [draw(rng, 3) for _ in range(2000)]
    assert {story.name for story in drawn} == set(NAMES)
    assert {story.noun for story in drawn} == set(NOUNS)
    forms = Counter(change.form for story in drawn for change in story.changes)
    assert set(forms) == set(GAINS + LOSSES)
