import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.component import component
from dsrl.core.estimate import wilson
from dsrl.data.model import Reply, Usage
from dsrl.data.sample import Votes
from dsrl.graders import Number
from dsrl.quickstart import OfflineTeacher, stories
from dsrl.stages.generate.vote import Ballot, VotingRule
from dsrl.stages.report import Report
from dsrl.stages.report.audit import shared
from dsrl.stages.report.label_noise import Tally, Teacher, beta_tail, fitted
from dsrl.stages.report.labels import THRESHOLDS, labels
from dsrl.stages.report.stratified import Stratum, stratified
from tests.stages.report.made import make_study

Question = Callable[[random.Random], int | None]
"""Draws one answer to a question whose right answer is 0."""


@component("tests.test_labels.Digit")
class Digit(Number):
    """Reads a single digit, fast."""

    def parse(self, reply: str) -> str | None:
        return reply if reply.isdigit() else None

    def same(self, first: str, second: str) -> bool:
        return first == second


def ballot(draw: Callable[[], int | None], rule: VotingRule) -> Ballot:
    found = Ballot(Digit(), rule)
    while not found.is_over():
        answers = [draw() for _ in range(found.next_wave())]
        found.add([Reply(text="hm" if answer is None else str(answer)) for answer in answers])
    return found


def slips(rng: random.Random) -> Question:
    """Right but for slips that seldom meet: 3 % of the answers are unreadable."""
    chance = rng.betavariate(6, 1.5)
    return lambda rng: None if rng.random() < 0.03 else 0 if rng.random() < chance else rng.randint(1, 8)


def of_four(rng: random.Random) -> Question:
    """Four options, of which the wrong ones are equally tempting."""
    chance = rng.betavariate(3, 1)
    return lambda rng: 0 if rng.random() < chance else rng.randint(1, 3)


def stubborn(rng: random.Random) -> Question:
    """One question in twenty is nearly always answered with the same wrong answer."""
    usual = int(rng.random() < 0.05)
    return lambda rng: usual if rng.random() < 0.95 else rng.randint(2, 9)


def voted(question: Callable[[random.Random], Question], rule: VotingRule, count: int = 400) -> list[Ballot]:
    rng = random.Random(7)
    asked = [question(rng) for _ in range(count)]
    return [ballot(lambda draw=draw: draw(rng), rule) for draw in asked]  # type: ignore[misc]


def expected_and_true(ballots: list[Ballot]) -> tuple[float, float]:
    """Share of wrong labels among the accepted: by the model, and in truth."""
    teacher = fitted([found.votes(None) for found in ballots])
    accepted = [found for found in ballots if found.winner() is not None]
    expected = [teacher.error(Tally.of(found.votes(None))) for found in accepted]
    return sum(expected) / len(accepted), sum(found.winner() != "0" for found in accepted) / len(accepted)


@pytest.mark.parametrize("rule", [VotingRule(16, stop="none"), VotingRule(16), VotingRule(8)])
@pytest.mark.parametrize(("question", "within"), [(slips, 0.02), (of_four, 0.02)])
def test_independent_slips_show_in_the_votes(
    question: Callable[[random.Random], Question], within: float, rule: VotingRule
) -> None:
    expected, true = expected_and_true(voted(question, rule))
    assert expected == pytest.approx(true, abs=within)


def test_a_mistake_made_every_time_does_not() -> None:
    """The limit of the method, which the report states beside its figures."""
    expected, true = expected_and_true(voted(stubborn, VotingRule(16)))
    assert expected < 0.005
    assert true > 0.03


@pytest.mark.parametrize("question", [slips, of_four])
@pytest.mark.parametrize("stop", ["none", "certain"])
def test_rows_kept_by_other_thresholds_are_foretold(question: Callable[[random.Random], Question], stop: str) -> None:
    """The same votes stopped early and in full: what the first foretells, the second shows."""
    asked = [question(random.Random(number)) for number in range(400)]

    def votes(rule: VotingRule) -> list[Votes]:
        streams = [random.Random(1000 + number) for number in range(400)]
        return [
            ballot(lambda draw=draw, rng=rng: draw(rng), rule).votes(None)  # type: ignore[misc]
            for draw, rng in zip(asked, streams, strict=True)
        ]

    seen, whole = votes(VotingRule(16, stop=stop)), votes(VotingRule(16, stop="none"))  # type: ignore[arg-type]
    teacher = fitted(seen)
    for share in THRESHOLDS:
        kept = sum(sum(teacher.kept(Tally.of(found), share)) for found in seen)
        ties = sum(found.margin == 0 for found in whole)
        assert kept == pytest.approx(sum(found.share >= share for found in whole), abs=24 + ties)


@pytest.mark.parametrize("wrong", [0.06, 0.3])
def test_the_offline_teacher_s_labels_are_as_wrong_as_foretold(wrong: float) -> None:
    """Truth is known here: the story's own answer. Its slips are steps miscounted, so that wrong answers meet."""
    teacher, rng = OfflineTeacher(wrong=wrong, busy=0.0), random.Random(3)
    ballots, right = [], []
    for _ in range(150):
        story = stories.draw(rng, rng.choice(stories.LEVELS))
        body = {
            "model": "offline-rules-v1",
            "messages": [{"role": "user", "content": f"{story.text}\n\nEnd with ####"}],
        }
        counter = iter(range(100))
        found = Ballot(Number(), VotingRule(8))
        while not found.is_over():
            said = [teacher.choice(body, next(counter)).content for _ in range(found.next_wave())]
            found.add([Reply(text=text) for text in said])
        ballots.append(found)
        right.append(found.winner() is None or found.winner() == str(story.answer))
    model = fitted([found.votes(None) for found in ballots])
    accepted = [found for found in ballots if found.winner() is not None]
    expected = sum(model.error(Tally.of(found.votes(None))) for found in accepted) / len(accepted)
    assert len(accepted) > 100
    assert expected == pytest.approx(right.count(False) / len(accepted), abs=0.03)


@given(
    st.lists(st.integers(1, 9), max_size=5).map(lambda counts: tuple(sorted(counts, reverse=True))),
    st.integers(0, 4),
    st.integers(0, 9),
    st.sampled_from(THRESHOLDS),
)
def test_chances_are_chances(counts: tuple[int, ...], unparsable: int, left: int, share: float) -> None:
    teacher, tally = Teacher(), Tally(counts, unparsable, left)
    right, wrong = teacher.kept(tally, share)
    assert 0 <= teacher.error(tally) <= 1
    assert 0 <= right + wrong <= 1 + 1e-9
    if left == 0 and counts:
        assert right + wrong == pytest.approx(float(counts[0] >= share * tally.came and counts[:1] != counts[1:2]))


def test_the_tail_of_a_beta_binomial_sums_to_what_it_should() -> None:
    assert beta_tail(0, 5, 2.0, 1.0) == 1.0
    assert beta_tail(1, 1, 3.0, 1.0) == pytest.approx(0.75)
    assert beta_tail(3, 4, 1.0, 1.0) == pytest.approx(2 / 5)


def test_the_page_and_metrics_tell_the_same_of_labels(tmp_path: Path) -> None:
    state, context = make_study(tmp_path)
    Report()(state, context)
    found = context.metrics["labels"]
    assert found["accepted"] == len(state.samples)
    assert found["candidates"] == found["accepted"] + sum(candidate.votes is not None for candidate in state.rejected)
    assert found["saved"]["asked"] < found["saved"]["planned"]
    assert found["saved"]["tokens"] is None
    assert [row["min_share"] for row in found["thresholds"]] == list(THRESHOLDS)
    rows = [row["rows"] for row in found["thresholds"]]
    assert rows == sorted(rows, reverse=True)
    assert found["writer"]["low"] < found["writer"]["disagreement"] < found["writer"]["high"]
    assert found["audit"] is None
    page = (context.run_dir / "report.html").read_text(encoding="utf-8")
    assert "How many labels are wrong" in page
    assert "What a hand check found" not in page


def test_tokens_saved_are_reckoned_at_the_mean_length_of_the_votes(tmp_path: Path) -> None:
    state, context = make_study(tmp_path, count=3)
    sample = state.samples[0]
    digest = sample.provenance.calls[-1].rpartition(":")[0]
    assert sample.votes is not None
    votes = {20 + i: Reply(text="#### 1", finish_reason="stop", usage=Usage(output_tokens=30)) for i in range(4)}
    context.calls.put(digest, {}, votes, "m")
    calls = (*sample.provenance.calls[:1], *(f"{digest}:{index}" for index in votes))
    longer = sample.replace(provenance=type(sample.provenance)(calls=calls))
    found = labels((longer,), (), context.calls)
    assert found is not None
    assert found.measures.saved.tokens == 30 * (sample.votes.planned - sample.votes.asked)


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ((300, 100, 60, 40), (0.005, 0.02, 0.08, 0.2)),
        ((300, 100, 60, 40), (0.02, 0.1, 0.25, 0.4)),
        ((400, 80, 20), (0.05, 0.05, 0.05)),
        ((500,), (0.1,)),
        ((5000, 1000, 500, 200, 50), (0.01, 0.05, 0.1, 0.2, 0.5)),
        ((100, 100, 100), (0.3, 0.5, 0.7)),
    ],
)
def test_the_interval_of_a_stratified_draw_covers_the_truth(sizes: tuple[int, ...], rates: tuple[float, ...]) -> None:
    rng = random.Random(0)
    faulty = [
        [1] * round(size * rate) + [0] * round(size * (1 - rate)) for size, rate in zip(sizes, rates, strict=True)
    ]
    true = sum(map(sum, faulty)) / sum(sizes)
    drawn = list(shared({str(place): size for place, size in enumerate(sizes)}, 50).values())
    covered = 0
    for _ in range(1000):
        judged = [sum(rng.sample(rows, count)) for rows, count in zip(faulty, drawn, strict=True)]
        found = stratified([Stratum("", *parts) for parts in zip(sizes, drawn, judged, strict=True)])
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= true <= found.high
    assert covered / 1000 >= 0.93


def test_what_was_judged_as_a_whole_is_known() -> None:
    found = stratified([Stratum("a", 5, 5, 1), Stratum("b", 5, 5, 0)])
    assert (found.low, found.value, found.high) == (0.1, 0.1, 0.1)
    assert stratified([Stratum("a", 5, 5, 1), Stratum("b", 500, 0, 0)]).value == 0.2
    with pytest.raises(ValueError, match="nothing"):
        stratified([Stratum("a", 5, 0, 0)])


@pytest.mark.parametrize(("share", "trials", "low", "high"), [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634)])
def test_wilson_s_interval_is_the_published_one(share: float, trials: int, low: float, high: float) -> None:
    assert wilson(share, trials) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
