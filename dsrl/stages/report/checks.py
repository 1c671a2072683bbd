"""What could make a result worthless: test items seen before, and numbers that must not be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.data.evaluation import Evaluation
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting

PLACES = {"training": "the training samples", "pretraining": "the base model's pre-training corpus"}


@dataclass(frozen=True)
class Check:
    """Something that could make the result worthless, and whether it does."""

    fine: bool | None
    """None: not known."""
    words: str


def checks(
    state: PipelineState, measured: Evaluation, overlap: Mapping[str, Any], clean: Mapping[str, Any]
) -> tuple[Check, ...]:
    """One for each place where test items may have been seen, and one if the two models were measured differently.
    `clean`: what the comparison on clean items found, where there was one."""
    base, trained = state.evaluation_base, state.evaluation_trained
    known = {**measured.overlap, **(trained or measured).overlap, **overlap}
    found = [_overlap(known.get(name), place, measured.num_items) for name, place in PLACES.items()]
    if clean.get("looked"):
        found[0] = _shared(clean)
    if base and trained and (base.grader, base.test) != (trained.grader, trained.test):
        found.append(Check(False, "The two models were graded or tested differently: don't compare these numbers."))
    return tuple(found)


def _shared(clean: Mapping[str, Any]) -> Check:
    """Shared text says more than equality."""
    if not clean["excluded"]:
        return Check(True, f"None of the {formatting.count(clean['n'])} test items shares text with a training sample.")
    gain = (clean.get("difference") or {}).get("estimate")
    words = f"{formatting.plural(clean['excluded'], 'test item shares', 'test items share')} text with training samples"
    return Check(False, f"{words}; without them the change is {formatting.points(gain)} points.")


def _overlap(number: Any, place: str, items: int) -> Check:
    if not isinstance(number, int):
        return Check(None, f"Not known whether test items occur in {place}.")
    if number == 0:
        return Check(True, f"None of the {formatting.count(items)} test items occurs in {place}.")
    return Check(False, f"{formatting.plural(number, 'test item occurs', 'test items occur')} in {place}.")
