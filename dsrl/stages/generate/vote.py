"""Labels by majority vote of the teacher's own answers (paper, section 3.2: sixteen at temperature 0.7)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.core.text import strip_thoughts
from dsrl.data.images import chat_content
from dsrl.data.model import Reply
from dsrl.data.sample import Votes
from dsrl.data.task import Task
from dsrl.graders import Grader
from dsrl.llm import Endpoint
from dsrl.stages.generate.candidate import Candidate, Refusal

if TYPE_CHECKING:
    from dsrl.llm import Client

Stop = Literal["certain", "lead", "none"]
Ties = Literal["refused", "first"]
DEFAULT_LEAD = 3
QUORUM = 0.5
"""Share of the votes that must not fail; with fewer there is no label."""


@component("verify.majority_vote")
class MajorityVote(Component):
    """Labels a candidate with the most frequent of the teacher's own answers; refuses too small a share or lead."""

    version: ClassVar[int] = 4

    teacher: Endpoint
    votes: int = Field(default=16, ge=1)
    """Answers of a full vote."""
    min_share: float = Field(default=0.5, gt=0, le=1)
    """Least share of the winner among the votes that came, unreadable ones included."""
    min_margin: float = Field(default=0.0, ge=0, le=1)
    """Least lead of the winner over the second, as a share of the votes that came; 0: one vote."""
    stop: Stop = "certain"
    """`certain`: stop once nothing can change the outcome. `lead`: also stop once the first answer leads by `lead`
    votes and would win if these were all; cheaper, and now and then another label than all votes would give. `none`:
    always ask for all votes."""
    lead: int = Field(default=DEFAULT_LEAD, ge=1)
    """Votes by which the first answer must lead to end a vote with `stop=lead`."""
    ties: Ties = "refused"
    """What happens to a candidate with two leading answers; `first`: the one that came first is the label."""
    count_own: bool = False
    """Whether the answer that the writer of the candidate gave counts as one more vote."""
    temperature: float = Field(default=0.7, ge=0)

    def check(self) -> None:
        """Raises `UserError` for a lead that would be ignored."""
        if self.stop != "lead" and self.lead != DEFAULT_LEAD:
            raise UserError(
                f"MajorityVote: lead={self.lead} has no effect with stop={self.stop}",
                next_step="give stop=lead too, or leave lead out",
            )

    @property
    def rule(self) -> "VotingRule":
        votes = self.votes + self.count_own
        return VotingRule(votes, self.min_share, self.min_margin, self.stop, self.lead, self.ties)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """Ask in waves, each the smallest that could end the vote.

        A batch API may take a day per wave, so it is asked for all votes at once. Only as many are counted as the rule
        would have asked for: the result does not depend on how the teacher is reached.
        """
        request = self.teacher.request(
            [{"role": "user", "content": chat_content(task.prompt(candidate.input, candidate.images))}],
            temperature=self.temperature,
        )
        ballot = Ballot(task.answer.for_question(candidate.input), self.rule)
        if self.count_own:
            ballot.add([Reply(text=candidate.output)])
        replies: list[Reply] = []
        counted = 0
        while not ballot.is_over():
            end = counted + ballot.next_wave()
            if end > len(replies):
                missing = (self.votes if self.teacher.batch else end) - len(replies)
                replies += await client.complete(request, count=missing, first=len(replies))
            ballot.add(replies[counted:end])
            counted = end
        return label_by_vote(candidate, ballot, replies[:counted])


def label_by_vote(candidate: Candidate, ballot: "Ballot", replies: Sequence[Reply]) -> Candidate | Refusal:
    """The labelled candidate, or a refusal that records the votes and the paid calls. The candidate's own output is the
    worked solution if it agrees, else the first vote for the winner."""
    winner, votes = ballot.winner(), ballot.votes(ballot.grader.parse(candidate.output))
    provenance = candidate.add_calls([reply.call for reply in replies if reply.error is None])
    if winner is None:
        counted = replace(candidate, votes=votes, provenance=provenance)
        detail = f"{votes.counts}, {votes.unparsable} unparsable, {votes.failed} failed"
        return Refusal(ballot.rejection_reason(), detail, counted)
    solution: str | None = candidate.output
    if not votes.generator_agrees:
        texts = (strip_thoughts(reply.text).strip() for reply in replies if reply.text is not None and reply.ended)
        solution = next((text for text in texts if ballot.grader.grade(text, winner).correct), None)
    return candidate.accept("MajorityVote", answer=winner, solution=solution, votes=votes, provenance=provenance)


@dataclass(frozen=True)
class VotingRule:
    """What it takes to win a vote, and to end it.

    Shares are of the votes that came, unreadable ones included. In the methods, `first` and `second` are the votes of
    the two leading answers, `came` all votes that came, and `remaining` those not asked for yet.
    """

    votes: int
    min_share: float = 0.5
    min_margin: float = 0.0
    stop: Stop = "certain"
    lead: int = 3
    ties: Ties = "refused"

    def wins(self, first: int, second: int, came: int) -> bool:
        """Whether the first answer would win if no more votes came."""
        tied = self.ties == "first" and self.min_margin == 0 and first == second
        return first >= required(self.min_share, came) and (tied or self._leads(first, second, came))

    def _leads(self, first: int, second: int, came: int) -> bool:
        return first - second >= required(self.min_margin, came)

    def is_decided(self, first: int, second: int, came: int, remaining: int) -> bool:
        """Whether the outcome is the same however the remaining votes turn out, failed ones included.

        In the worst case for the first answer all go to the second, in the best case all go to itself: a failed call
        lowers the required number by one vote at most.
        """
        # A tie goes to the answer that came first, so a tie in the worst case decides nothing: `_leads` must hold, too.
        worst = (first, second + remaining, came + remaining)
        wins_at_worst = self.has_quorum(came) and self.wins(*worst) and self._leads(*worst)
        wins_at_best = self.has_quorum(came + remaining) and self.wins(first + remaining, second, came + remaining)
        return wins_at_worst == wins_at_best

    def has_quorum(self, came: int) -> bool:
        """Whether this many votes are enough to label anything."""
        return came >= required(QUORUM, self.votes)

    def is_over(self, first: int, second: int, came: int, remaining: int) -> bool:
        """Whether no further vote is asked for."""
        if remaining == 0 or self.stop == "none":
            return remaining == 0
        leads = self.stop == "lead" and first - second >= self.lead and self.wins(first, second, came)
        return leads or self.is_decided(first, second, came, remaining)

    def next_wave(self, first: int, second: int, came: int, remaining: int) -> int:
        """The fewest further votes that could end the vote if all went to the first answer; if that has less than half
        of the votes so far, the fewest that could end it if all went to it or all against it."""
        doubtful = 2 * first < came
        for wave in range(1, remaining):
            against = second + min(wave, first - second)
            rest = came + wave, remaining - wave
            if self.is_over(first + wave, second, *rest) or (doubtful and self.is_over(first, against, *rest)):
                return wave
        return remaining


def required(share: float, votes: int) -> int:
    """The smallest number of votes, at least one, that is this share of them."""
    return max(1, math.ceil(share * votes - 1e-9))


@dataclass
class Ballot:
    """Votes counted so far. An answer joins the first cluster that the grader calls the same: with votes taken by index
    the outcome is the same in every run."""

    grader: Grader
    rule: VotingRule
    counts: Counter[str] = field(default_factory=Counter)
    """First spelling of each cluster -> its votes."""
    asked: int = 0
    unparsable: int = 0
    failed: int = 0

    def add(self, replies: Iterable[Reply]) -> None:
        """Count the next votes. A failed call is a missing vote; a reply that is unreadable or did not end, for example
        because it was cut at `max_tokens`, counts against every answer."""
        for reply in replies:
            self.asked += 1
            answer = self.grader.parse(strip_thoughts(reply.text)) if reply.text is not None and reply.ended else None
            if reply.error is not None:
                self.failed += 1
            elif answer is None:
                self.unparsable += 1
            else:
                self.counts[self.cluster_label(answer)] += 1

    def cluster_label(self, answer: str) -> str:
        """The first spelling in the cluster that this answer belongs to."""
        if answer in self.counts:
            return answer
        return next((known for known in self.counts if self.grader.same(answer, known)), answer)

    @property
    def remaining(self) -> int:
        return self.rule.votes - self.asked

    @property
    def leaders(self) -> tuple[int, int]:
        """Votes of the first and of the second."""
        best = [count for _, count in self.counts.most_common(2)] + [0, 0]
        return best[0], best[1]

    def is_over(self) -> bool:
        return self.rule.is_over(*self.leaders, self.asked - self.failed, self.remaining)

    def next_wave(self) -> int:
        """Votes to ask for at once."""
        return self.rule.next_wave(*self.leaders, self.asked - self.failed, self.remaining)

    def winner(self) -> str | None:
        wins = self._has_quorum and self.rule.wins(*self.leaders, self.asked - self.failed)
        return self.counts.most_common(1)[0][0] if wins else None

    @property
    def _has_quorum(self) -> bool:
        return self.rule.has_quorum(self.rule.votes - self.failed)

    def rejection_reason(self) -> str:
        """Why a vote that is over has no winner."""
        first, second = self.leaders
        if not self._has_quorum or self.failed == self.asked:
            return "calls failed"
        if first == 0:
            return "no readable vote"
        if first + self.remaining < required(self.rule.min_share, self.rule.votes - self.failed):
            return "no majority"
        return "tied vote" if first == second else "small margin"

    def votes(self, own: str | None) -> Votes:
        """The record; `own` is the answer of the sample's writer."""
        first, second = self.leaders
        valid = max(1, self.rule.votes - self.failed)
        winner = self.winner()
        return Votes(
            counts=dict(self.counts.most_common()),
            asked=self.asked,
            planned=self.rule.votes,
            unparsable=self.unparsable,
            failed=self.failed,
            share=first / valid,
            margin=(first - second) / valid,
            censored=self.remaining > 0,
            generator_agrees=None if winner is None or own is None else self.grader.same(own, winner),
        )
