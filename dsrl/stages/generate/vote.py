"""Labels by majority vote of the teacher's own answers (paper, section 3.2: sixteen at temperature 0.7)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.data.images import chat_content
from dsrl.data.model import Reply
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.stages.generate.ballot import Ballot, Rule, Stop, Ties
from dsrl.stages.generate.candidate import Candidate, Refusal

if TYPE_CHECKING:
    from dsrl.llm import Client

USUAL_LEAD = 3


@component("verify.majority_vote")
class MajorityVote(Component):
    """The answer of most of the teacher's own attempts becomes the label; too small a share or lead is refused."""

    version: ClassVar[int] = 4

    teacher: Endpoint
    votes: int = Field(default=16, ge=1)
    """Answers of a full vote."""
    min_share: float = Field(default=0.5, gt=0, le=1)
    """Of the votes that came, unreadable ones among them, that the winner needs."""
    min_margin: float = Field(default=0.0, ge=0, le=1)
    """Of the votes that came, by which the winner must lead the second; 0: by one vote."""
    stop: Stop = "certain"
    """`certain`: stop once nothing can change the outcome. `lead`: also once the first answer leads by `lead` votes and
    would win if these were all; cheaper, and now and then another label than all votes would give. `none`: always ask
    for all votes."""
    lead: int = Field(default=USUAL_LEAD, ge=1)
    """Votes by which the first answer must lead to end a vote with `stop=lead`."""
    ties: Ties = "refused"
    """What becomes of a candidate with two answers in front; `first`: the one that came first is the label."""
    count_own: bool = False
    """Whether the answer that the writer of the candidate gave counts as one more vote."""
    temperature: float = Field(default=0.7, ge=0)

    def check(self) -> None:
        """Raises `UserError` for a lead that nobody would heed."""
        if self.stop != "lead" and self.lead != USUAL_LEAD:
            raise UserError(
                f"MajorityVote: lead={self.lead} has no effect with stop={self.stop}",
                next_step="give stop=lead too, or leave lead out",
            )

    @property
    def rule(self) -> Rule:
        votes = self.votes + self.count_own
        return Rule(votes, self.min_share, self.min_margin, self.stop, self.lead, self.ties)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """Ask in waves, each the smallest that could end the vote.

        Through a batch API a wave may take a day, so all votes are asked for at once. They are counted only as far as
        the rule would have asked: how the teacher is reached does not change the result.
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
        while not ballot.over():
            end = counted + ballot.next_wave()
            if end > len(replies):
                wanted = (self.votes if self.teacher.batch else end) - len(replies)
                replies += await client.complete(request, count=wanted, first=len(replies))
            ballot.add(replies[counted:end])
            counted = end
        return _outcome(candidate, ballot, replies[:counted])


def _outcome(candidate: Candidate, ballot: Ballot, replies: Sequence[Reply]) -> Candidate | Refusal:
    """The labelled candidate, or a refusal that keeps the votes and what was paid for them."""
    winner, votes = ballot.winner(), ballot.votes(ballot.grader.parse(candidate.output))
    provenance = candidate.with_calls([reply.call for reply in replies if reply.error is None])
    if winner is None:
        counted = replace(candidate, votes=votes, provenance=provenance)
        return Refusal(ballot.why(), f"{votes.counts}, {votes.unparsable} unparsable, {votes.failed} failed", counted)
    solution = candidate.output if votes.generator_agrees else _first_right(ballot, replies, winner)
    return candidate.passed("MajorityVote", answer=winner, solution=solution, votes=votes, provenance=provenance)


def _first_right(ballot: Ballot, replies: Sequence[Reply], winner: str) -> str | None:
    """The first vote that came to the winning answer serves as the sample's worked solution."""
    texts = (reply.text for reply in replies if reply.text is not None)
    return next((text for text in texts if ballot.grader.grade(text, winner).correct), None)
