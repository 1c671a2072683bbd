from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.core.component import component
from dsrl.data.model import Reply
from dsrl.graders import Grader, Number
from dsrl.stages.generate.vote import Ballot, VotingRule, required

FAILED, UNREADABLE = "failed", "unreadable"

replies = st.sampled_from(["1", "2", "3", "1.0", UNREADABLE, FAILED])
mostly_one = st.sampled_from(["1"] * 6 + ["2", UNREADABLE, FAILED])
mostly_lost = st.sampled_from(["1", "2", UNREADABLE, UNREADABLE, FAILED, FAILED])
sequences = st.one_of(*(st.lists(kind, min_size=1, max_size=17) for kind in (replies, mostly_one, mostly_lost)))
shares = st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0])
margins = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])


def reply(vote: str) -> Reply:
    if vote == FAILED:
        return Reply(text=None, error="down")
    return Reply(text="who knows" if vote == UNREADABLE else f"#### {vote}")


def counted(votes: Sequence[str], rule: VotingRule, grader: Grader | None = None) -> Ballot:
    """Votes taken in the rule's waves until it is over; there is no winner before the end of the last."""
    ballot = Ballot(grader or Number(), rule)
    while not ballot.is_over():
        wave = ballot.next_wave()
        assert 1 <= wave <= ballot.remaining
        for _ in range(wave):
            assert not ballot.is_over() or ballot.winner() is None
            ballot.add([reply(votes[ballot.asked])])
    return ballot


def full(votes: Sequence[str], share: float = 0.5, margin: float = 0.0) -> Ballot:
    return counted(votes, VotingRule(len(votes), share, margin, "none"))


def early(votes: Sequence[str], share: float = 0.5, margin: float = 0.0) -> Ballot:
    return counted(votes, VotingRule(len(votes), share, margin, "certain"))


def by_definition(votes: Sequence[str], share: float, margin: float) -> Fraction | None:
    """The value with the minimum share of the votes that came, and enough more of them than any other; none where more
    than half of the calls failed."""
    came = [vote for vote in votes if vote != FAILED]
    if 2 * len(came) < len(votes):
        return None
    values = [Fraction(vote) for vote in came if vote != UNREADABLE]
    counts = sorted(((values.count(value), value) for value in set(values)), reverse=True)
    if not counts or counts[0][0] < Fraction(str(share)) * len(came):
        return None
    lead = counts[0][0] - (counts[1][0] if len(counts) > 1 else 0)
    return counts[0][1] if lead > 0 and lead >= Fraction(str(margin)) * len(came) else None


@settings(deadline=None, max_examples=500)
@given(votes=sequences, share=shares, margin=margins)
def test_the_winner_follows_the_definition(votes: list[str], share: float, margin: float) -> None:
    winner = full(votes, share, margin).winner()
    assert (winner and Fraction(winner)) == by_definition(votes, share, margin)


@settings(deadline=None, max_examples=1000)
@given(votes=sequences, share=shares, margin=margins)
def test_certain_stopping_gives_the_full_votes_winner(votes: list[str], share: float, margin: float) -> None:
    stopped, whole = early(votes, share, margin), full(votes, share, margin)
    assert stopped.winner() == whole.winner()
    assert stopped.asked <= whole.asked == len(votes)


@settings(deadline=None, max_examples=300)
@given(votes=sequences, rest=st.lists(replies, min_size=17, max_size=17), share=shares, margin=margins)
def test_certain_stopping_holds_for_any_remaining_votes(
    votes: list[str], rest: list[str], share: float, margin: float
) -> None:
    stopped = early(votes, share, margin)
    other = votes[: stopped.asked] + rest[: len(votes) - stopped.asked]
    assert full(other, share, margin).winner() == stopped.winner()


@settings(deadline=None, max_examples=500)
@given(votes=sequences, share=shares, margin=margins, lead=st.integers(1, 6))
def test_only_a_lead_can_change_the_outcome(votes: list[str], share: float, margin: float, lead: int) -> None:
    """An outcome that differs from the full vote's needs a lead that ended the vote, and has a winner."""
    rule = VotingRule(len(votes), share, margin, "lead", lead)
    stopped, whole = counted(votes, rule), full(votes, share, margin)
    first, second = stopped.leaders
    if stopped.winner() != whole.winner():
        assert stopped.remaining > 0
        assert stopped.winner() is not None
        assert first - second >= lead
    if stopped.remaining and first - second < lead:
        assert stopped.winner() is None or rule.is_decided(
            first, second, stopped.asked - stopped.failed, stopped.remaining
        )


def test_a_lead_of_all_votes_equals_certain_stopping() -> None:
    votes = ["1", "2", "1", "1", "1", UNREADABLE, "1", "1"]
    by_lead = counted(votes, VotingRule(8, stop="lead", lead=8))
    assert by_lead.counts == early(votes).counts


def test_a_lead_can_change_the_winner() -> None:
    votes = ["1"] * 3 + ["2"] * 5
    assert (full(votes).winner(), early(votes).winner()) == ("2", "2")
    assert counted(votes, VotingRule(8, stop="lead")).winner() == "1"


@settings(deadline=None, max_examples=300)
@given(votes=sequences, share=shares, margin=margins, stop=st.sampled_from(["certain", "lead", "none"]))
def test_the_record_adds_up(votes: list[str], share: float, margin: float, stop: str) -> None:
    ballot = counted(votes, VotingRule(len(votes), share, margin, stop))  # type: ignore[arg-type]
    record, whole = ballot.votes(None), full(votes, share, margin).votes(None)
    assert sum(record.counts.values()) + record.unparsable + record.failed == record.asked
    assert record.censored is (record.asked < record.planned == len(votes))
    if ballot.winner() is not None and ballot.winner() == full(votes, share, margin).winner():
        assert record.share <= whole.share


@pytest.mark.parametrize(
    ("votes", "share", "margin", "winner", "why"),
    [
        (["1"], 0.5, 0.0, "1", None),
        ([UNREADABLE], 0.5, 0.0, None, "no readable vote"),
        ([FAILED], 0.5, 0.0, None, "calls failed"),
        (["1", "1"], 0.5, 0.0, "1", None),
        (["1", "2"], 0.5, 0.0, None, "tied vote"),
        (["1", FAILED], 0.5, 0.0, "1", None),
        (["1", UNREADABLE], 0.5, 0.0, "1", None),
        (["1", "1", "2", "2"], 0.5, 0.0, None, "tied vote"),
        (["1", "1", "2", "3"], 0.5, 0.0, "1", None),
        (["1", "1", "2", "3"], 0.6, 0.0, None, "no majority"),
        (["1", "1", "2", "3"], 0.5, 0.25, "1", None),
        (["1", "1", "2", "3"], 0.5, 0.3, None, "small margin"),
        (["1", "2", "3"], 0.1, 0.0, None, "tied vote"),
        (["1", "1", UNREADABLE, UNREADABLE, UNREADABLE], 0.5, 0.0, None, "no majority"),
        (["1", "1", FAILED, FAILED], 0.5, 0.0, "1", None),
        (["1", "1", FAILED, FAILED], 1.0, 1.0, "1", None),
        (["1", "1", FAILED, FAILED, FAILED], 0.5, 0.0, None, "calls failed"),
        (["1", "2", "1.0"], 0.5, 0.0, "1", None),
        (["1.0", "2", "1"], 0.5, 0.0, "1", None),
        (["1"] * 8 + ["2"] * 8, 0.5, 0.0, None, "tied vote"),
        (["1"] * 9 + ["2"] * 7, 0.5, 0.0, "1", None),
        (["1"] * 9 + ["2"] * 7, 0.5, 0.25, None, "small margin"),
        (["1"] * 10 + ["2"] * 6, 0.5, 0.25, "1", None),
        (["1", "1", "1"], 1.0, 0.0, "1", None),
        (["1", "1", UNREADABLE], 1.0, 0.0, None, "no majority"),
    ],
)
def test_known_outcomes(votes: list[str], share: float, margin: float, winner: str | None, why: str | None) -> None:
    for ballot in (full(votes, share, margin), early(votes, share, margin)):
        assert ballot.winner() == winner
        assert why is None or ballot.rejection_reason() == why


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (VotingRule(16), 9),
        (VotingRule(16, min_share=0.75), 12),
        (VotingRule(16, min_margin=0.5), 12),
        (VotingRule(16, stop="lead"), 3),
        (VotingRule(16, stop="lead", lead=4), 4),
        (VotingRule(16, stop="none"), 16),
        (VotingRule(1), 1),
        (VotingRule(2), 2),
    ],
)
def test_a_unanimous_vote_takes_one_wave(rule: VotingRule, asked: int) -> None:
    assert Ballot(Number(), rule).next_wave() == asked
    ballot = counted(["1"] * rule.votes, rule)
    assert ballot.asked == asked
    record = ballot.votes("1")
    assert (record.counts, record.share, record.censored) == ({"1": asked}, asked / rule.votes, asked < rule.votes)
    assert record.generator_agrees is True


def test_a_vote_without_a_possible_winner_stops() -> None:
    assert early(["1", *[UNREADABLE] * 15]).asked == 10
    assert early([str(number) for number in range(16)]).asked == 10
    assert early([UNREADABLE] * 16).asked == 9


@component("tests.test_ballot.Near")
class Near(Number):
    """Same within one, so that 1 equals 2 and 2 equals 3, but 1 does not equal 3."""

    tolerance: float = 1.0


@pytest.mark.parametrize(
    ("votes", "counts"),
    [
        (["1", "2", "3"], {"1": 2, "3": 1}),
        (["2", "1", "3"], {"2": 3}),
        (["1", "3", "2", "2"], {"1": 3, "3": 1}),
        (["1", "3", "3", "2", "4"], {"3": 3, "1": 2}),
    ],
)
def test_a_vote_joins_the_first_cluster_that_is_the_same(votes: list[str], counts: dict[str, int]) -> None:
    assert counted(votes, VotingRule(len(votes), stop="none"), Near()).votes(None).counts == counts


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from("12345"), min_size=1, max_size=12), shares, margins)
def test_certain_stopping_with_a_non_transitive_grader(votes: list[str], share: float, margin: float) -> None:
    whole = counted(votes, VotingRule(len(votes), share, margin, "none"), Near())
    assert counted(votes, VotingRule(len(votes), share, margin), Near()).winner() == whole.winner()


@given(st.floats(0, 1), st.integers(0, 200))
def test_required_votes(share: float, votes: int) -> None:
    assert 1 <= required(share, votes) <= max(1, votes)
    assert required(0.3, 10) == 3


@settings(deadline=None, max_examples=500)
@given(votes=sequences, share=shares)
def test_certain_stopping_with_ties_to_the_first(votes: list[str], share: float) -> None:
    ends = [counted(votes, VotingRule(len(votes), share, 0.0, stop, ties="first")) for stop in ("certain", "none")]
    early_winner, winner = (ballot.winner() for ballot in ends)
    assert early_winner == winner
    strict = full(votes, share).winner()
    assert strict is None or winner == strict
    first, second = ends[1].leaders
    if winner is not None and first == second:
        assert winner == next(name for name, count in ends[1].counts.items() if count == first)
