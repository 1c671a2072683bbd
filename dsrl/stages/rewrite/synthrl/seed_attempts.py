"""The attempts at one seed: what was accepted, what the next attempt starts from, and which variant is kept."""

from dataclasses import dataclass, field
from typing import Literal

from dsrl.data.sample import Rejected, Sample
from dsrl.stages.generate.candidate import Candidate

Stop = Literal["first", "best"]
Chain = Literal["parent", "last_accepted"]


@dataclass
class Trial:
    """One seed under rewriting."""

    seed: Sample
    accepted: list[Candidate] = field(default_factory=list)
    """In the order of attempts."""
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, outcome: Candidate | Rejected) -> None:
        """What came of an attempt."""
        if isinstance(outcome, Candidate):
            self.accepted.append(outcome)
        else:
            self.rejected.append(outcome)

    def open(self, stop: Stop) -> bool:
        """Whether another attempt is made."""
        return stop == "best" or not self.accepted

    def start(self, chain: Chain) -> str:
        """The question that the writer is shown."""
        return self.accepted[-1].input if chain == "last_accepted" and self.accepted else self.seed.input

    def kept(self, stop: Stop) -> Candidate | None:
        """The variant of this seed: the first accepted, or that with the fewest right replies, ties to the first."""
        if stop == "first" or not self.accepted:
            return next(iter(self.accepted), None)
        return min(self.accepted, key=_num_correct)

    def passed_over(self, stop: Stop) -> list[Candidate]:
        """Accepted, but another was kept."""
        kept = self.kept(stop)
        return [candidate for candidate in self.accepted if candidate is not kept]


def _num_correct(candidate: Candidate) -> int:
    assert candidate.rate is not None, "checked before the run"
    return candidate.rate.num_correct
