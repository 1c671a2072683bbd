from pathlib import Path

from dsrl.data.images import ImageStore
from dsrl.data.sample import Rate, Rejected, Verdict, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report.thumbnails import Thumbnails
from dsrl.stages.report.variants import variants

NO_IMAGES = Thumbnails(ImageStore(Path()), 0, 0)
TASK = Task(name="t", instruction="Add.", answer=Number())
FIGURES = {
    "seeds": 2,
    "seed_counts": [0, 1, 0, 0, 1],
    "eligible": 1,
    "variants": 1,
    "attempts": 3,
    "mean_seed": 4.0,
    "mean_fresh": 2.0,
    "mean_accepting": 1.0,
}


def rate(correct: int) -> Rate:
    return Rate(
        model="m",
        num_rollouts=4,
        num_valid=4,
        num_correct=correct,
        num_error=0,
        num_truncated=0,
        temperature=1.0,
        grader="g",
    )


def test_seeds_and_variants_are_paired_with_their_counts() -> None:
    seed = new_sample("t", "Seed?", "1", "seed").replace(score=rate(4))
    said = (Verdict(verifier="QualityJudge", accepted=True, reason="9 of 10"),)
    child = new_sample("t", "Harder?", "1", "harder", parent=seed, verdicts=said).replace(score=rate(2))
    refused = tuple(Rejected(stage="rewrite", reason="too hard") for _ in range(2))
    found = variants(
        PipelineState(task=TASK, samples=(seed, child), rejected=refused), {"stages": {"rewrite": FIGURES}}, NO_IMAGES
    )
    assert found is not None
    assert found.outcomes == (("accepted", 1), ("too hard", 2))
    (pair,) = found.pairs
    assert (pair.seed, pair.variant, pair.seed_count, pair.fresh_count) == ("Seed?", "Harder?", "4 of 4", "2 of 4")
    assert pair.accepting == ("QualityJudge: 9 of 10",)
    assert "from 4.0 to 2.0" in found.lead
    assert len(found.panels) == 2


def test_the_section_needs_seeds_but_no_variants() -> None:
    state = PipelineState(task=TASK)
    assert variants(state, {"stages": {"rewrite": {"harder": 3}}}, NO_IMAGES) is None
    none = {**FIGURES, "variants": 0, "mean_seed": None, "mean_fresh": None, "mean_accepting": None}
    found = variants(state, {"stages": {"rewrite": none}}, NO_IMAGES)
    assert found is not None
    assert "0 of these" in found.lead
    assert "fell" not in found.lead
