import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.component import component
from dsrl.data.model import Reply, Usage
from dsrl.data.sample import Votes
from dsrl.graders import Number
from dsrl.quickstart import OfflineTeacher, stories
from dsrl.stages.generate.vote import Ballot, VotingRule
from dsrl.stages.report import Report
from dsrl.stages.report.audit import Stratum, allocate_rows, stratified_share
from dsrl.stages.report.labels import THRESHOLDS, VoteCounts, VoteModel, fit_vote_model, labels
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
    """Correct except for slips that rarely coincide; 3 % of the answers are unreadable."""
    chance = rng.betavariate(6, 1.5)
    return lambda rng: None if rng.random() < 0.03 else 0 if rng.random() < chance else rng.randint(1, 8)


def of_four(rng: random.Random) -> Question:
    """Four options, of which the wrong ones are equally tempting."""
    chance = rng.betavariate(3, 1)
    return lambda rng: 0 if rng.random() < chance else rng.randint(1, 3)


def stubborn(rng: random.Random) -> Question:
    """One question in twenty nearly always gets the same wrong answer."""
    usual = int(rng.random() < 0.05)
    return lambda rng: usual if rng.random() < 0.95 else rng.randint(2, 9)


def voted(question: Callable[[random.Random], Question], rule: VotingRule, count: int = 400) -> list[Ballot]:
    rng = random.Random(7)
    asked = [question(rng) for _ in range(count)]
    return [ballot(lambda draw=draw: draw(rng), rule) for draw in asked]  # type: ignore[misc]


def expected_and_true(ballots: list[Ballot]) -> tuple[float, float]:
    """Share of wrong labels among accepted ones: by the model, and in truth."""
    model = fit_vote_model([found.votes(None) for found in ballots])
    accepted = [found for found in ballots if found.winner() is not None]
    expected = [model.label_error(VoteCounts.of(found.votes(None))) for found in accepted]
    return sum(expected) / len(accepted), sum(found.winner() != "0" for found in accepted) / len(accepted)


@pytest.mark.parametrize("rule", [VotingRule(16, stop="none"), VotingRule(16), VotingRule(8)])
@pytest.mark.parametrize(("question", "within"), [(slips, 0.02), (of_four, 0.02)])
def test_independent_errors_are_estimated_from_the_votes(
    question: Callable[[random.Random], Question], within: float, rule: VotingRule
) -> None:
    expected, true = expected_and_true(voted(question, rule))
    assert expected == pytest.approx(true, abs=within)


def test_a_consistent_mistake_is_not_detected() -> None:
    """The method's limit, which the report states."""
    expected, true = expected_and_true(voted(stubborn, VotingRule(16)))
    assert expected < 0.005
    assert true > 0.03


@pytest.mark.parametrize("question", [slips, of_four])
@pytest.mark.parametrize("stop", ["none", "certain"])
def test_rows_kept_at_other_thresholds_are_predicted(question: Callable[[random.Random], Question], stop: str) -> None:
    """Predictions from votes that stopped early, against the same votes in full."""
    asked = [question(random.Random(number)) for number in range(400)]

    def votes(rule: VotingRule) -> list[Votes]:
        streams = [random.Random(1000 + number) for number in range(400)]
        return [
            ballot(lambda draw=draw, rng=rng: draw(rng), rule).votes(None)  # type: ignore[misc]
            for draw, rng in zip(asked, streams, strict=True)
        ]

    seen, whole = votes(VotingRule(16, stop=stop)), votes(VotingRule(16, stop="none"))  # type: ignore[arg-type]
    model = fit_vote_model(seen)
    chances = [model.keep_chances(VoteCounts.of(found), THRESHOLDS) for found in seen]
    for place, share in enumerate(THRESHOLDS):
        kept = sum(sum(found[place]) for found in chances)
        ties = sum(found.margin == 0 for found in whole)
        assert kept == pytest.approx(sum(found.share >= share for found in whole), abs=24 + ties)


@pytest.mark.parametrize("wrong", [0.06, 0.3])
def test_the_offline_teacher_s_label_error_is_as_estimated(wrong: float) -> None:
    """The stories' answers are known. The teacher miscounts steps, so that its wrong answers coincide."""
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
    model = fit_vote_model([found.votes(None) for found in ballots])
    accepted = [found for found in ballots if found.winner() is not None]
    expected = sum(model.label_error(VoteCounts.of(found.votes(None))) for found in accepted) / len(accepted)
    assert len(accepted) > 100
    assert expected == pytest.approx(right.count(False) / len(accepted), abs=0.03)


@given(
    st.lists(st.integers(1, 9), max_size=5).map(lambda counts: tuple(sorted(counts, reverse=True))),
    st.integers(0, 4),
    st.integers(0, 9),
    st.sampled_from(THRESHOLDS),
)
def test_chances_are_between_0_and_1(counts: tuple[int, ...], unparsable: int, left: int, share: float) -> None:
    model, votes = VoteModel(), VoteCounts(counts, unparsable, left)
    ((correct, wrong),) = model.keep_chances(votes, [share])
    assert 0 <= model.label_error(votes) <= 1
    assert 0 <= correct + wrong <= 1 + 1e-9
    if left == 0 and counts:
        kept = counts[0] >= share * votes.received and counts[:1] != counts[1:2]
        assert correct + wrong == pytest.approx(float(kept))


def test_label_figures_are_in_the_metrics_and_on_the_page(tmp_path: Path) -> None:
    state, context = make_study(tmp_path)
    before = json.dumps(context.metrics)
    stage = Report()
    found = stage.summary_metrics("report", stage(state, context))["labels"]
    assert json.dumps(context.metrics) == before
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
    assert "expected label error" in page
    assert "Manual audit" not in page


def test_saved_tokens_are_estimated_from_the_mean_length_of_the_votes(tmp_path: Path) -> None:
    state, context = make_study(tmp_path, count=3)
    sample = state.samples[0]
    digest = sample.provenance.calls[-1].rpartition(":")[0]
    assert sample.votes is not None
    votes = {20 + i: Reply(text="#### 1", finish_reason="stop", usage=Usage(output_tokens=30)) for i in range(4)}
    context.reply_cache.put(digest, {}, votes, "m")
    calls = (*sample.provenance.calls[:1], *(f"{digest}:{index}" for index in votes))
    longer = sample.replace(provenance=type(sample.provenance)(calls=calls))
    found = labels((longer,), (), context.reply_cache)
    assert found is not None
    assert found.figures.saved.tokens == 30 * (sample.votes.planned - sample.votes.asked)


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
    drawn = list(allocate_rows({str(place): size for place, size in enumerate(sizes)}, 50).values())
    covered = 0
    for _ in range(1000):
        judged = [sum(rng.sample(rows, count)) for rows, count in zip(faulty, drawn, strict=True)]
        value, low, high = stratified_share([Stratum("", *parts) for parts in zip(sizes, drawn, judged, strict=True)])
        assert 0 <= low <= value <= high <= 1
        covered += low <= true <= high
    assert covered / 1000 >= 0.93


def test_strata_judged_as_a_whole_have_no_uncertainty() -> None:
    assert stratified_share([Stratum("a", 5, 5, 1), Stratum("b", 5, 5, 0)]) == (0.1, 0.1, 0.1)
    assert stratified_share([Stratum("a", 5, 5, 1), Stratum("b", 500, 0, 0)])[0] == 0.2
    with pytest.raises(ValueError, match="judged"):
        stratified_share([Stratum("a", 5, 0, 0)])
