import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.data.overlap.index import KINDS, OverlapIndex, longest_shared_run, rejection_reason, split_shared
from dsrl.data.overlap.tokenize import normalise_word, words
from tests.command import CHECKOUT, ENVIRONMENT

NAMES = ("Anna", "Boris", "Clara", "Dmitri", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas")
VOCABULARY = tuple(
    f"{first}{last}" for first in ("ba", "do", "fe", "gi", "lu", "mo", "na") for last in map(str.lower, NAMES)
)


def question(rng: random.Random) -> str:
    """A random question with names and numbers; two of them share at most a few words."""
    chosen = [rng.choice((rng.choice(NAMES), str(rng.randint(2, 90)), *rng.sample(VOCABULARY, 6))) for _ in range(30)]
    return f"How {' '.join(chosen)}?"


def renamed(text: str, rng: random.Random) -> str:
    """The text under other names and numbers."""
    fresh = iter(rng.sample(["Quentin", "Rosalind", "Siegfried", "Tabitha", "Ulysses", "Viola"], 6))
    names: dict[str, str] = {}
    made = [
        names.setdefault(word, next(fresh)) if word in NAMES else str(rng.randint(91, 999)) if word.isdigit() else word
        for word in text.split(" ")
    ]
    return " ".join(made)


def kinds(items: OverlapIndex, *texts: str) -> list[str | None]:
    """The most certain rule for each text."""
    found = {hit.text: hit for hit in sorted(items.find_overlaps(texts), key=lambda hit: -hit.rank)}
    return [found[place].kind if place in found else None for place in range(len(texts))]


def test_planted_items_are_found_and_clean_texts_are_not() -> None:
    rng = random.Random(0)
    everything = list(dict.fromkeys(question(rng) for _ in range(900)))
    test, clean = everything[:200], everything[200:]
    items = OverlapIndex(test)
    assert items.disabled_rules == ()
    found = kinds(items, *test[:20], *(renamed(text, rng) for text in test[20:40]), *clean)
    assert found[:20] == ["same"] * 20
    assert sum(kind is not None for kind in found[20:40]) >= 18
    assert sum(kind is not None for kind in found[40:]) <= len(clean) // 100


LONG = " ".join(f"word{number}" for number in range(60))
OTHERS = [" ".join(f"other{number}x{place}" for place in range(30)) for number in range(30)]


@pytest.mark.parametrize(
    ("text", "item", "kind"),
    [
        ("What is  THE capital of France", "What is the capital of France?", "same"),
        ("Compute 2+3.", "Compute 2-3.", None),
        ("Compute 2 + 3.", "Compute 2+3.", "same"),
        ("Is it so? Compute 7*8 now.", "Compute 7*8", None),  # too short to be found inside a text
        ("Say: how many moons circle Mars today? Now!", "How many moons circle Mars today?", "whole"),
        ("How many moons does Mars have today?", "How many moons circle Mars today?", None),
        (" ".join(LONG.split()[5:18]), LONG, "run"),
        (" ".join(LONG.split()[5:17]), LONG, None),
        (" and ".join(" ".join(LONG.split()[start : start + 12]) for start in range(0, 60, 6)), LONG, "most"),
        (" and ".join(" ".join(LONG.split()[start : start + 8]) for start in range(0, 60, 8)), LONG, "renamed"),
        (" and ".join(" ".join(LONG.split()[start : start + 4]) for start in range(0, 60, 4)), LONG, "reworded"),
        (" ".join(reversed(LONG.split())), LONG, "reworded"),
        (" ".join(LONG.split()[::4]), LONG, None),
        ("", LONG, None),
        ("?!", "...", None),
        ("图书馆里有三本书和五支铅笔", "图书馆里有三本书和五支铅笔。", "same"),
        ("昨天,图书馆里有三本书和五支铅笔在桌上", "图书馆里有三本书和五支铅笔", "run"),
    ],
)
def test_rules(text: str, item: str, kind: str | None) -> None:
    assert kinds(OverlapIndex([*OTHERS, item]), text) == [kind]


def test_common_phrasing_does_not_match() -> None:
    """All items share a long instruction, and a few share a stem of common words."""
    frame = "Read the following passage with care and then say which one of these statements must be true about it"
    asked = "Which of the following statements about these passages, if it is true, must say the most?"
    items = [f"{frame}: {OTHERS[place]}" for place in range(30)]
    items += [f"{asked} {text}" for text in OTHERS[:2]]
    found = OverlapIndex(items)
    fresh = " ".join(f"fresh{place}" for place in range(40))
    assert kinds(found, f"{frame}: {fresh}", frame) == [None, None]
    assert kinds(found, f"{frame}: {OTHERS[3]}", f"{frame}: {fresh} {OTHERS[3]}") == ["same", "run"]


def test_passage_shared_by_many_items_matches_all_of_them() -> None:
    """Several questions about one long passage: no n-gram belongs to one item alone, but half of them is enough."""
    items = [*OTHERS, *(f"{LONG} Question {number}: why does it {word}?" for number, word in enumerate(VOCABULARY[:9]))]
    found = list(OverlapIndex(items).find_overlaps([f"{LONG} Something else?"]))
    assert {hit.kind for hit in found} == {"most"}
    assert len(found) == 9


def test_renamed_rule_is_disabled_for_templated_items() -> None:
    rng = random.Random(1)
    test = [
        f"{rng.choice(NAMES)} has {rng.randint(2, 99)} {word}. {rng.choice(NAMES)} takes {word} away. How many now?"
        for word in VOCABULARY
        for _ in range(2)
    ]
    items = OverlapIndex(test)
    assert "renamed" in items.disabled_rules
    assert kinds(items, f"Zora has 100 {VOCABULARY[0]}. Zeno takes {VOCABULARY[0]} away. How many now?") == [None]


def test_repeated_items_do_not_count_as_common_phrases() -> None:
    assert kinds(OverlapIndex([*OTHERS, *[LONG] * 9]), LONG, " ".join(LONG.split()[3:30])) == ["same", "run"]


def test_renamed_rule_can_be_turned_off() -> None:
    rng = random.Random(0)
    test = [question(rng) for _ in range(50)]
    other = renamed(test[0], rng)
    assert kinds(OverlapIndex(test, ngrams=(), renamed=None), other, test[0]) == [None, "same"]
    assert kinds(OverlapIndex(test, ngrams=()), other) == ["renamed"]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.text(max_size=80), max_size=6), st.lists(st.text(max_size=80), max_size=6))
def test_any_text_is_accepted_and_finds_itself(items: list[str], texts: list[str]) -> None:
    found = OverlapIndex(items)
    hits = list(found.find_overlaps([*texts, *items]))
    assert len({(hit.text, hit.item) for hit in hits}) == len(hits)
    own = {(place, place) for place, item in enumerate(items) if words(item)}
    assert own <= {(hit.text - len(texts), hit.item) for hit in hits if hit.kind == "same"}


def test_batches_equal_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    texts = [question(rng) for _ in range(50)]
    whole = list(OverlapIndex(texts[:25]).find_overlaps(texts))
    monkeypatch.setattr("dsrl.data.overlap.index.BATCH_SIZE", 7)
    assert list(OverlapIndex(texts[:25]).find_overlaps(texts)) == whole


def test_word_codes_are_the_same_in_every_process() -> None:
    code = "from dsrl.data.overlap.tokenize import WordCoder, normalise_word; print(WordCoder(normalise_word)['Apple'])"
    made = {
        subprocess.run(
            [sys.executable, "-c", code], env={**ENVIRONMENT, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1
    assert made != {""}


def test_words() -> None:
    text = r"Tom's 3rd 1,200.50 x_2 \frac{a}{b}^2+3 2-3 3-day **bold** 图书has 5km $.40"
    assert [normalise_word(word) for word in words(text)] == [
        "tom", "s", "3rd", "1200.50", "x", "2", "frac", "a", "b", "^", "2", "+", "3", "2", "-", "3", "3", "day", "bold",
        "图", "书", "has", "5km", "40",
    ]  # fmt: skip


def test_shared_words_keep_the_spelling_of_the_text() -> None:
    assert longest_shared_run("So: Tom's RED  hat, again", "my tom's red hat") == "Tom's RED  hat"
    assert longest_shared_run("nothing", "in common") == ""
    pieces = split_shared("Ann has 3 red hats.", "Bob has 4 red hats!")
    assert pieces == [("Ann ", False), ("has", True), (" 3 ", False), ("red hats", True), (".", False)]


def test_rejection_reasons_are_distinct() -> None:
    assert len({rejection_reason(kind, 13) for kind in KINDS}) == len(KINDS)
    assert rejection_reason("run", 20) == "20 words of a test item"


@pytest.mark.skipif(not os.environ.get("DSRL_TEST_DATA"), reason="DSRL_TEST_DATA names no folder")
def test_planted_gsm8k(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The benchmark on GSM8K: verbatim and renamed test items among training questions."""
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    import contamination

    contamination.planted(Path(os.environ["DSRL_TEST_DATA"]), show=False)
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {row[0].strip("| "): int(row[2]) for row in table[1:]}
    assert found["verbatim"] == contamination.PLANTED
    assert found["renamed"] >= 40
    assert found["(clean)"] <= contamination.SAMPLES // 200
