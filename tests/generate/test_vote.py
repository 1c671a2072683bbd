import asyncio
import random
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.generate import MajorityVote
from dsrl.generate.candidate import Candidate, Refusal
from dsrl.generate.vote import Ballot
from dsrl.grade import Number
from dsrl.llm import Endpoint, Request
from dsrl.model import Reply
from dsrl.sample import Provenance
from dsrl.task import Task

FAILED = "failed"
UNREADABLE = "unreadable"

replies = st.sampled_from(["1", "2", "3", "1.0", UNREADABLE, FAILED])
sequences = st.integers(1, 12).flatmap(lambda votes: st.lists(replies, min_size=votes, max_size=votes))
mostly_one = st.integers(1, 16).flatmap(
    lambda votes: st.lists(st.sampled_from(["1"] * 6 + ["2", UNREADABLE, FAILED]), min_size=votes, max_size=votes)
)
shares = st.sampled_from([0.1, 0.3, 0.5, 0.6, 1.0])


def counted(ballot: Ballot, votes: list[str]) -> None:
    """Add replies as `MajorityVote` does."""
    read = [None if vote == UNREADABLE else vote for vote in votes if vote != FAILED]
    ballot.add(read, failed=votes.count(FAILED))


def stopped_early(votes: list[str], share: float) -> Ballot:
    ballot = Ballot(Number(), len(votes), share)
    while not ballot.decided():
        wave = ballot.next_wave()
        assert 1 <= wave <= ballot.remaining
        counted(ballot, votes[ballot.asked : ballot.asked + wave])
    return ballot


def full(votes: list[str], share: float) -> Ballot:
    ballot = Ballot(Number(), len(votes), share)
    counted(ballot, votes)
    return ballot


def by_definition(votes: list[str], share: float) -> Fraction | None:
    """The value with the minimum share of the votes that came, and more of them than any other."""
    came = [vote for vote in votes if vote != FAILED]
    values = [Fraction(vote) for vote in came if vote != UNREADABLE]
    counts = sorted(((values.count(value), value) for value in set(values)), reverse=True)
    if not counts or counts[0][0] < Fraction(str(share)) * len(came):
        return None
    tied = len(counts) > 1 and counts[0][0] == counts[1][0]
    return None if tied else counts[0][1]


@settings(deadline=None, max_examples=400)
@given(votes=sequences | mostly_one, share=shares)
def test_stopping_early_ends_as_all_votes_would(votes: list[str], share: float) -> None:
    early, all_votes = stopped_early(votes, share), full(votes, share)
    assert early.winner() == all_votes.winner()
    assert early.asked <= all_votes.asked


@settings(deadline=None, max_examples=400)
@given(votes=sequences | mostly_one, share=shares)
def test_the_winner_is_the_one_of_the_definition(votes: list[str], share: float) -> None:
    winner = full(votes, share).winner()
    assert (winner and Fraction(winner)) == by_definition(votes, share)


@settings(deadline=None, max_examples=200)
@given(votes=sequences | mostly_one, share=shares)
def test_the_record_adds_up_and_bounds_what_a_full_vote_says(votes: list[str], share: float) -> None:
    early, all_votes = stopped_early(votes, share).votes(None), full(votes, share).votes(None)
    for record in (early, all_votes):
        assert sum(record.counts.values()) + record.unparsable + record.failed == record.asked
        assert record.censored is (record.asked < record.planned)
    assert not all_votes.censored
    if early.censored:
        assert early.asked < len(votes)
    if stopped_early(votes, share).winner() and not all_votes.failed:
        assert early.share <= all_votes.share


@pytest.mark.parametrize(
    ("votes", "share", "winner"),
    [
        (["1"], 0.5, "1"),
        ([UNREADABLE], 0.5, None),
        ([FAILED], 0.5, None),
        (["1", "2"], 0.5, None),
        (["1", "1", "2", "2"], 0.5, None),
        (["1", "1", "2", "3"], 0.5, "1"),
        (["1", "1", "2", "3"], 0.6, None),
        (["1", "1", UNREADABLE, UNREADABLE, UNREADABLE], 0.5, None),
        (["1", "1", FAILED, FAILED, FAILED], 0.5, "1"),
        (["1", "2", "1.0"], 0.5, "1"),
        (["1.0", "2", "1"], 0.5, "1.0"),
        (["1"] * 8 + ["2"] * 8, 0.5, None),
        (["1"] * 9 + ["2"] * 7, 0.5, "1"),
        (["1", "1", "1"], 1.0, "1"),
        (["1", "1", UNREADABLE], 1.0, None),
        (["1", "1", FAILED], 1.0, "1"),
    ],
)
def test_votes_with_a_known_outcome(votes: list[str], share: float, winner: str | None) -> None:
    assert full(votes, share).winner() == winner
    assert stopped_early(votes, share).winner() == winner


def test_unanimous_votes_stop_as_soon_as_no_other_answer_can_catch_up() -> None:
    ballot = stopped_early(["1"] * 16, 0.5)
    assert ballot.asked == 9
    record = ballot.votes("1")
    assert (record.counts, record.share, record.margin, record.censored) == ({"1": 9}, 9 / 16, 9 / 16, True)


TASK = Task(name="sums", instruction="Add.", answer=Number())
ENDPOINT = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
DRAFT = Candidate("1 + 1?", "It is\n#### 2", "initial", Provenance(calls=("written",)))


@dataclass
class Urn:
    """Gives prepared replies by their index, as an endpoint does, and notes what it was asked."""

    texts: list[str | None]
    waves: list[tuple[int, int]] = field(default_factory=list)

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        self.waves.append((first, count))
        wanted = range(first, first + count)
        return [Reply(text=self.texts[i], error=None if self.texts[i] else "down", call=f"c:{i}") for i in wanted]


def vote(texts: list[str | None], draft: Candidate = DRAFT, **fields: Any) -> tuple[Candidate | Refusal, Urn]:
    urn = Urn(texts)
    stage = MajorityVote(teacher=ENDPOINT, **{"votes": len(texts), **fields})
    return asyncio.run(stage.verify(draft, TASK, urn)), urn  # type: ignore[arg-type]


def test_the_winner_becomes_the_label_and_a_reply_that_reached_it_the_solution() -> None:
    outcome, _ = vote(["#### 3", "so #### 4", "#### 4"], stop="none")
    assert isinstance(outcome, Candidate)
    assert (outcome.answer, outcome.solution) == ("4", "so #### 4")
    assert outcome.votes is not None
    assert outcome.votes.generator_agrees is False
    assert outcome.provenance.calls == ("written", "c:0", "c:1", "c:2")
    assert outcome.verdicts[-1].accepted


def test_the_writers_own_solution_is_kept_where_it_agrees_and_is_no_vote() -> None:
    outcome, _ = vote(["#### 2", "#### 2.0", "#### 3"], stop="none")
    assert isinstance(outcome, Candidate)
    assert (outcome.answer, outcome.solution) == ("2", DRAFT.output)
    assert outcome.votes is not None
    assert outcome.votes.counts == {"2": 2, "3": 1}
    assert outcome.votes.generator_agrees is True


def test_a_writer_without_a_readable_answer_leaves_the_agreement_unknown() -> None:
    outcome, _ = vote(["#### 2"] * 3, draft=replace(DRAFT, output="no idea"))
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert (outcome.votes.generator_agrees, outcome.solution) == (None, "#### 2")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["#### 1", "#### 2"], "tied vote"),
        (["#### 1", "#### 2", "#### 3"], "no majority"),
        (["hm", "hm"], "no readable vote"),
        ([None, None], "calls failed"),
        (["hm", None], "no readable vote"),
    ],
)
def test_a_refusal_says_why_and_keeps_the_votes(texts: list[str | None], reason: str) -> None:
    outcome, _ = vote(texts, stop="none")
    assert isinstance(outcome, Refusal)
    assert outcome.reason == reason
    assert outcome.candidate.votes is not None
    assert outcome.candidate.votes.asked == len(texts)
    assert len(outcome.candidate.provenance.calls) == 1 + len(texts)


def test_failed_calls_are_missing_votes_not_votes_against() -> None:
    outcome, _ = vote([None, None, None, "#### 2"], stop="none")
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert (outcome.votes.share, outcome.votes.failed) == (1.0, 3)


def test_votes_are_asked_for_in_waves_by_index_and_no_index_twice() -> None:
    rng = random.Random(3)
    texts: list[str | None] = [f"#### {rng.choice('1112')}" for _ in range(16)]
    _, urn = vote(texts)
    asked = [index for first, count in urn.waves for index in range(first, first + count)]
    assert asked == list(range(len(asked)))
    _, urn = vote(texts, stop="none")
    assert urn.waves == [(0, 16)]
