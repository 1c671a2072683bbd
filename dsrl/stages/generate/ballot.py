"""Counting votes: who wins, and when nothing that is still to come could change that."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from dsrl.data.model import Reply
from dsrl.data.sample import Votes
from dsrl.graders import Grader

Stop = Literal["certain", "lead", "none"]
Ties = Literal["refused", "first"]
QUORUM = 0.5
"""Share of the votes that has to come, or to be still to come: more failed calls than that, and there is no label."""


@dataclass(frozen=True)
class Rule:
    """What it takes to win a vote, and to end it. Shares are of the votes that came, unreadable ones among them."""

    votes: int
    min_share: float = 0.5
    min_margin: float = 0.0
    stop: Stop = "certain"
    lead: int = 3
    ties: Ties = "refused"

    def wins(self, first: int, second: int, came: int) -> bool:
        """Whether the first answer would win if `came` votes were all."""
        tied = self.ties == "first" and self.min_margin == 0 and first == second
        return first >= least(self.min_share, came) and (tied or self._leads(first, second, came))

    def _leads(self, first: int, second: int, came: int) -> bool:
        return first - second >= least(self.min_margin, came)

    def settled(self, first: int, second: int, came: int, left: int) -> bool:
        """Whether the outcome is the same however `left` more votes turn out, failed ones among them.

        The worst for the first answer is that all go to the second, the best that all go to itself: a call that fails
        lowers what is needed by one vote at most.
        """
        clear = self.wins(first, second + left, came + left) and self._leads(first, second + left, came + left)
        wins_at_worst = self.quorate(came) and clear  # a tie goes to whichever came first, so it settles nothing
        wins_at_best = self.quorate(came + left) and self.wins(first + left, second, came + left)
        return wins_at_worst == wins_at_best

    def quorate(self, came: int) -> bool:
        """Whether so many votes are enough to label anything by."""
        return came >= least(QUORUM, self.votes)

    def over(self, first: int, second: int, came: int, left: int) -> bool:
        """Whether no further vote is asked for."""
        if left == 0 or self.stop == "none":
            return left == 0
        leads = self.stop == "lead" and first - second >= self.lead and self.wins(first, second, came)
        return leads or self.settled(first, second, came, left)

    def wave(self, first: int, second: int, came: int, left: int) -> int:
        """The fewest further votes that could end the vote if all went to the first answer; where that has less than
        half of the votes so far, if all went either to it or against it."""
        doubtful = 2 * first < came
        for wave in range(1, left):
            against = second + min(wave, first - second)
            rest = came + wave, left - wave
            if self.over(first + wave, second, *rest) or (doubtful and self.over(first, against, *rest)):
                return wave
        return left


def least(share: float, votes: int) -> int:
    """The smallest number of votes, one at least, that is this share of them."""
    return max(1, math.ceil(share * votes - 1e-9))


@dataclass
class Ballot:
    """Votes counted so far. An answer that the grader calls the same as that of an earlier cluster joins it, the first
    such cluster where there are several: with votes taken by index the outcome is the same in every run."""

    grader: Grader
    rule: Rule
    counts: Counter[str] = field(default_factory=Counter)
    """First spelling of each cluster -> its votes."""
    asked: int = 0
    unparsable: int = 0
    failed: int = 0

    def add(self, replies: Iterable[Reply]) -> None:
        """Count the next votes. A failed call is a missing vote, a reply without a readable answer one for nobody."""
        for reply in replies:
            self.asked += 1
            answer = self.grader.parse(reply.text) if reply.text is not None else None
            if reply.error is not None:
                self.failed += 1
            elif answer is None:
                self.unparsable += 1
            else:
                self.counts[self.spelling(answer)] += 1

    def spelling(self, answer: str) -> str:
        """The first spelling of the cluster that this answer belongs to."""
        if answer in self.counts:
            return answer
        return next((known for known in self.counts if self.grader.same(answer, known)), answer)

    @property
    def left(self) -> int:
        """Votes not asked for yet."""
        return self.rule.votes - self.asked

    @property
    def leaders(self) -> tuple[int, int]:
        """Votes of the first and of the second."""
        best = [count for _, count in self.counts.most_common(2)] + [0, 0]
        return best[0], best[1]

    def over(self) -> bool:
        """Whether the rule asks for no further vote."""
        return self.rule.over(*self.leaders, self.asked - self.failed, self.left)

    def next_wave(self) -> int:
        """Votes to ask for at once."""
        return self.rule.wave(*self.leaders, self.asked - self.failed, self.left)

    def winner(self) -> str | None:
        """The answer that wins by the votes counted; None without one."""
        wins = self._quorate and self.rule.wins(*self.leaders, self.asked - self.failed)
        return self.counts.most_common(1)[0][0] if wins else None

    @property
    def _quorate(self) -> bool:
        return self.rule.quorate(self.rule.votes - self.failed)

    def why(self) -> str:
        """The reason for which a vote that is over has no winner."""
        first, second = self.leaders
        if not self._quorate or self.failed == self.asked:
            return "calls failed"
        if first == 0:
            return "no readable vote"
        if first + self.left < least(self.rule.min_share, self.rule.votes - self.failed):
            return "no majority"
        return "tied vote" if first == second else "small margin"

    def votes(self, own: str | None) -> Votes:
        """The record; `own` is the answer that the writer of the sample gave."""
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
            censored=self.left > 0,
            generator_agrees=None if winner is None or own is None else self.grader.same(own, winner),
        )
