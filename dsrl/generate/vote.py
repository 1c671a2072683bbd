"""Labels by majority vote of the teacher's own answers (paper, section 3.2: sixteen at temperature 0.7)."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dsrl.generate.candidate import Candidate, Refusal
from dsrl.grade import Grader
from dsrl.llm import Endpoint
from dsrl.model import Reply
from dsrl.part import Part, part
from dsrl.sample import Votes
from dsrl.task import Task

if TYPE_CHECKING:
    from dsrl.llm import Client


@dataclass
class Ballot:
    """Votes counted so far. Answers that the grader calls the same are one."""

    grader: Grader
    planned: int
    min_share: float
    counts: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    unparsable: int = 0
    failed: int = 0

    def add(self, answers: Iterable[str | None], failed: int = 0) -> None:
        """Count some more; None is a reply without a readable answer."""
        for answer in answers:
            self.asked += 1
            if answer is None:
                self.unparsable += 1
            else:
                self.counts[self.spelling(answer)] += 1
        self.asked += failed
        self.failed += failed

    def spelling(self, answer: str) -> str:
        """The first spelling of the cluster this answer belongs to."""
        return next((known for known in self.counts if self.grader.same(known, answer)), answer)

    @property
    def remaining(self) -> int:
        return self.planned - self.asked

    @property
    def needed(self) -> int:
        """Votes that give the minimum share of those that came or may still come."""
        return max(1, math.ceil(self.min_share * (self.planned - self.failed) - 1e-9))

    @property
    def leaders(self) -> tuple[int, int]:
        """Votes of the first and of the second."""
        best = [count for _, count in self.counts.most_common(2)] + [0, 0]
        return best[0], best[1]

    def decided(self) -> bool:
        """Whether no vote still to come can change the outcome."""
        first, second = self.leaders
        wins = first >= self.needed and first - second > self.remaining
        loses = first + self.remaining < self.needed
        return wins or loses or self.remaining == 0

    def next_wave(self) -> int:
        """The fewest further votes after which the outcome could be certain."""
        first, second = self.leaders
        to_lead = math.ceil((self.remaining + second - first + 1) / 2)
        return min(self.remaining, max(1, to_lead, self.needed - first))

    def winner(self) -> str | None:
        """The answer with the minimum share and a lead; None without one."""
        first, second = self.leaders
        return self.counts.most_common(1)[0][0] if first >= self.needed and first > second else None

    def votes(self, generator_answer: str | None) -> Votes:
        """The record. Shares are of the planned votes, failed calls apart: lower bounds if the vote stopped early."""
        first, second = self.leaders
        valid = max(1, self.planned - self.failed)
        winner = self.winner()
        agrees = None if winner is None or generator_answer is None else self.grader.same(winner, generator_answer)
        return Votes(
            counts=dict(self.counts.most_common()),
            asked=self.asked,
            planned=self.planned,
            unparsable=self.unparsable,
            failed=self.failed,
            share=first / valid,
            margin=(first - second) / valid,
            censored=self.remaining > 0,
            generator_agrees=agrees,
        )


@part
class MajorityVote(Part):
    """The answer of most of the teacher's own attempts becomes the label; too small a share or a tie is refused."""

    teacher: Endpoint
    votes: int = Field(default=16, ge=1)
    """Answers of a full vote."""
    min_share: float = Field(default=0.5, gt=0, le=1)
    """Of all votes, unparsable ones among them, that the winner needs."""
    stop: Literal["certain", "none"] = "certain"
    """`certain`: stop once nothing can change the outcome; `none`: always ask for all votes."""
    temperature: float = Field(default=0.7, ge=0)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """Ask in waves, each the smallest that could settle the vote."""
        messages = [{"role": "user", "content": task.prompt(candidate.input)}]
        request = self.teacher.request(messages, temperature=self.temperature)
        ballot = Ballot(task.answer, self.votes, self.min_share)
        replies: list[Reply] = []
        while not ballot.decided() or (self.stop == "none" and ballot.remaining):
            wave = ballot.remaining if self.stop == "none" else ballot.next_wave()
            new = await client.complete(request, count=wave, first=ballot.asked)
            replies += new
            answered = [reply.text for reply in new if reply.text is not None]
            ballot.add((task.answer.parse(text) for text in answered), failed=len(new) - len(answered))
        return self._outcome(candidate, ballot, replies)

    def _outcome(self, candidate: Candidate, ballot: Ballot, replies: list[Reply]) -> Candidate | Refusal:
        own = ballot.grader.parse(candidate.output)
        winner = ballot.winner()
        votes = ballot.votes(own)
        provenance = candidate.with_calls([reply.call for reply in replies])
        if winner is None:
            counted = Candidate(**{**vars(candidate), "votes": votes, "provenance": provenance})
            return Refusal(_why(ballot), f"{votes.counts}, {votes.unparsable} unparsable", counted)
        solution = candidate.output if votes.generator_agrees else _first_right(ballot, replies, winner)
        return candidate.passed("MajorityVote", answer=winner, solution=solution, votes=votes, provenance=provenance)


def _first_right(ballot: Ballot, replies: list[Reply], winner: str) -> str | None:
    """The first vote that came to the winning answer serves as the sample's worked solution."""
    for reply in replies:
        parsed = ballot.grader.parse(reply.text) if reply.text is not None else None
        if parsed is not None and ballot.grader.same(parsed, winner):
            return reply.text
    return None


def _why(ballot: Ballot) -> str:
    first, second = ballot.leaders
    if ballot.failed == ballot.asked:
        return "calls failed"
    if first == 0:
        return "no readable vote"
    return "tied vote" if first == second and first >= ballot.needed else "no majority"
