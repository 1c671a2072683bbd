"""What is said of seeds of which little can come, and when a writer is given up."""

from collections import Counter
from collections.abc import Sequence

from dsrl.core.errors import StageFailed
from dsrl.data.sample import Sample
from dsrl.stages.generate.accept_until import Patience
from dsrl.stages.rewrite.synthrl.figures import seed_counts
from dsrl.stages.rewrite.synthrl.seed_attempts import Trial


def about_seeds(samples: Sequence[Sample], eligible: int, rollouts: int, min_correct: int) -> str:
    """A warning where all seeds are too hard or too easy, with their histogram; else empty."""
    counts = seed_counts(samples, rollouts)
    told = f"right replies 0 to {rollouts}: {' '.join(map(str, counts))} seeds"
    if incomplete := len(samples) - sum(counts):
        told += f", and {incomplete} without {rollouts} replies that came to an end"
    if not eligible:
        return (
            f"rewrite: no seed is solved {min_correct} times or more, so none is rewritten ({told}); "
            "take easier seeds or lower rewrite.min_correct"
        )
    if counts[-1] == sum(counts):
        return f"rewrite: every seed is always solved ({told}); only their variants can teach this model anything"
    return ""


def check_yield(trials: Sequence[Trial], attempts: int, min_yield: float) -> None:
    """Raises `StageFailed` where next to nothing is accepted: the rest would be paid for in vain."""
    accepted = sum(len(trial.accepted) for trial in trials)
    if lost := Patience(min_yield).lost(attempts, accepted, 0):
        rejected = [one for trial in trials for one in trial.rejected]
        reasons = Counter(one.reason for one in rejected).most_common()
        raise StageFailed(
            f"rewrite: giving up: {lost}; {', '.join(f'{count} x {reason}' for reason, count in reasons)}",
            got=f"such as {rejected[0].reason}: {(rejected[0].input or '')[:100]!r} {rejected[0].detail[:100]}",
            next_step="look at the writer and the thresholds; rewrite.min_yield=0 makes all attempts; what was paid "
            "for is kept and not paid again",
        )
