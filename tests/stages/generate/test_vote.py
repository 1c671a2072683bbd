import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Reply
from dsrl.data.sample import Provenance
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint, Request
from dsrl.stages.generate import MajorityVote
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.generate.vote import Ballot, VotingRule

TASK = Task(name="sums", instruction="Add.", answer=Number())
ENDPOINT = Endpoint(model="m", base_url="http://127.0.0.1:1/v1", takes_batch=True)
DRAFT = Candidate("1 + 1?", "It is\n#### 2", "initial", Provenance(calls=("written",)))


@dataclass
class Urn:
    """A client with prepared replies by index, which records the requested waves."""

    texts: list[str | None]
    waves: list[tuple[int, int]] = field(default_factory=list)

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        self.waves.append((first, count))
        wanted = range(first, first + count)
        return [
            Reply(text=self.texts[i], error="down" if self.texts[i] is None else None, call=f"c:{i}") for i in wanted
        ]


def vote(texts: list[str | None], draft: Candidate = DRAFT, **fields: Any) -> tuple[Candidate | Refusal, Urn]:
    urn = Urn(texts)
    stage = MajorityVote(**{"teacher": ENDPOINT, "votes": len(texts), **fields})
    return asyncio.run(stage.verify(draft, TASK, urn)), urn  # type: ignore[arg-type]


def test_the_winner_is_the_label_and_a_matching_reply_the_solution() -> None:
    outcome, _ = vote(["#### 3", "so #### 4", "#### 4"], stop="none")
    assert isinstance(outcome, Candidate)
    assert (outcome.answer, outcome.solution) == ("4", "so #### 4")
    assert outcome.votes is not None
    assert outcome.votes.generator_agrees is False
    assert outcome.provenance.calls == ("written", "c:0", "c:1", "c:2")
    assert outcome.verdicts[-1].accepted


def test_an_agreeing_draft_is_the_solution_but_no_vote() -> None:
    outcome, _ = vote(["#### 2", "#### 2.0", "#### 3"], stop="none")
    assert isinstance(outcome, Candidate)
    assert (outcome.answer, outcome.solution) == ("2", DRAFT.output)
    assert outcome.votes is not None
    assert outcome.votes.counts == {"2": 2, "3": 1}
    assert outcome.votes.generator_agrees is True


def test_an_unreadable_draft_leaves_the_agreement_unknown() -> None:
    outcome, _ = vote(["#### 2"] * 3, draft=replace(DRAFT, output="no idea"))
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert (outcome.votes.generator_agrees, outcome.solution) == (None, "#### 2")


@pytest.mark.parametrize(
    ("texts", "fields", "reason"),
    [
        (["#### 1", "#### 2"], {}, "tied vote"),
        (["#### 1", "#### 2", "#### 3"], {}, "no majority"),
        (["#### 1", "#### 1", "#### 2"], {"min_margin": 0.5}, "small margin"),
        (["hm", "hm"], {}, "no readable vote"),
        ([None, None], {}, "calls failed"),
        (["hm", None], {}, "no readable vote"),
        ([None, None, None, "#### 2"], {}, "calls failed"),
    ],
)
def test_a_refusal_has_reason_votes_and_calls(texts: list[str | None], fields: dict[str, Any], reason: str) -> None:
    outcome, _ = vote(texts, stop="none", **fields)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == reason
    assert outcome.candidate.votes is not None
    assert outcome.candidate.votes.asked == len(texts)
    paid = [f"c:{i}" for i, text in enumerate(texts) if text is not None]
    assert outcome.candidate.provenance.calls == ("written", *paid)


def test_failed_calls_are_missing_votes() -> None:
    outcome, _ = vote([None, None, "#### 2", "#### 2"], stop="none")
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert (outcome.votes.share, outcome.votes.failed) == (1.0, 2)


def test_a_reply_without_text_counts_as_unreadable() -> None:
    class Mute(Urn):
        async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
            return [Reply(text=None, finish_reason="content_filter", call=f"c:{first + i}") for i in range(count)]

    outcome = asyncio.run(MajorityVote(teacher=ENDPOINT, votes=2).verify(DRAFT, TASK, Mute([])))  # type: ignore[arg-type]
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "no readable vote"
    assert outcome.candidate.provenance.calls == ("written", "c:0", "c:1")


@pytest.mark.parametrize("stop", ["certain", "lead"])
def test_votes_are_requested_in_waves(stop: str) -> None:
    texts: list[str | None] = [f"#### {answer}" for answer in "1211211212111111"]
    outcome, urn = vote(texts, stop=stop)
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    asked = [index for first, count in urn.waves for index in range(first, first + count)]
    assert asked == list(range(outcome.votes.asked))
    assert len(urn.waves) == {"certain": 3, "lead": 3}[stop]
    _, urn = vote(texts, stop="none")
    assert urn.waves == [(0, 16)]


@pytest.mark.parametrize("stop", ["certain", "lead", "none"])
def test_a_batch_requests_all_votes_and_counts_the_same(stop: str) -> None:
    rng = random.Random(5)
    for _ in range(20):
        texts: list[str | None] = [rng.choice(["#### 1", "#### 1", "#### 2", "hm", None]) for _ in range(8)]
        batch = Endpoint(model="m", base_url="http://127.0.0.1:1/v1", takes_batch=True, batch=True)
        outcome, urn = vote(texts, stop=stop, teacher=batch)
        assert urn.waves == [(0, 8)]
        assert outcome == vote(texts, stop=stop)[0]


def test_check_refuses_a_lead_without_effect() -> None:
    MajorityVote(teacher=ENDPOINT, stop="lead", lead=5).check()
    MajorityVote(teacher=ENDPOINT).check()
    with pytest.raises(UserError, match="lead=5 has no effect with stop=certain"):
        MajorityVote(teacher=ENDPOINT, lead=5).check()


def test_ties_go_to_the_first_answer_if_allowed() -> None:
    outcome, _ = vote(["#### 3", "#### 4", "#### 4", "#### 3"], stop="none", ties="first")
    assert isinstance(outcome, Candidate)
    assert outcome.answer == "3"


def test_count_own_adds_the_drafts_vote() -> None:
    outcome, urn = vote(["#### 2", "#### 3"], stop="none", count_own=True)
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert (outcome.answer, outcome.votes.counts, outcome.votes.planned) == ("2", {"2": 2, "3": 1}, 3)
    assert urn.waves == [(0, 2)]
    assert outcome.provenance.calls == ("written", "c:0", "c:1")
    mute, _ = vote(["#### 3", "#### 3"], replace(DRAFT, output="no idea"), stop="none", count_own=True)
    assert isinstance(mute, Candidate)
    assert mute.votes is not None
    assert (mute.answer, mute.votes.unparsable, mute.votes.share) == ("3", 1, pytest.approx(2 / 3))


def test_count_own_with_early_stopping() -> None:
    outcome, urn = vote(["#### 2"] * 8, count_own=True)
    assert isinstance(outcome, Candidate)
    assert outcome.votes is not None
    assert outcome.votes.asked == 1 + sum(count for _, count in urn.waves) == 5
    batch = Endpoint(model="m", base_url="http://127.0.0.1:1/v1", takes_batch=True, batch=True)
    assert vote(["#### 2"] * 8, count_own=True, teacher=batch)[0] == outcome


@pytest.mark.parametrize("finish", ["length", "max_tokens", "model_length", "abort", "error", "content_filter"])
def test_votes_that_did_not_end_do_not_count(finish: str) -> None:
    ballot = Ballot(Number(), VotingRule(5))
    ballot.add([Reply(text="#### 2", finish_reason=finish)] * 3 + [Reply(text="#### 29", finish_reason="stop")])
    assert (dict(ballot.counts), ballot.unparsable) == ({"29": 1}, 3)


def test_draft_in_a_thought_is_not_a_vote() -> None:
    ballot = Ballot(Number(), VotingRule(5))
    ballot.add([Reply(text="<think>\nMaybe\n#### 4\nno, wait"), Reply(text="<think>#### 4</think>\n#### 3")])
    assert (dict(ballot.counts), ballot.unparsable) == ({"3": 1}, 1)
