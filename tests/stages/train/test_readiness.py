import random

import pytest

from dsrl.stages.train.readiness import (
    describe_readiness,
    predict_readiness,
    readiness_warning,
    zero_variance_probability,
)


def test_group_of_one_has_no_variance() -> None:
    assert zero_variance_probability(3, 8, 1) == pytest.approx(1.0)


def test_two_replies_to_a_question_with_known_pass_rate() -> None:
    """With many rollouts the pass rate p is certain: p^2 + (1 - p)^2."""
    assert zero_variance_probability(300_000, 1_000_000, 2) == pytest.approx(0.3**2 + 0.7**2, abs=1e-4)


@pytest.mark.parametrize(("correct", "valid", "responses"), [(1, 4, 8), (0, 16, 4), (7, 8, 16), (4, 8, 2)])
def test_closed_form_agrees_with_sampling(correct: int, valid: int, responses: int) -> None:
    draw = random.Random(1)
    rates = [draw.betavariate(correct + 0.5, valid - correct + 0.5) for _ in range(40_000)]
    sampled = sum(rate**responses + (1 - rate) ** responses for rate in rates) / len(rates)
    assert zero_variance_probability(correct, valid, responses) == pytest.approx(sampled, abs=0.01)


def test_larger_groups_have_variance_more_often() -> None:
    probabilities = [zero_variance_probability(2, 16, responses) for responses in (2, 4, 8, 16, 64)]
    assert probabilities == sorted(probabilities, reverse=True)


def test_number_of_questions_that_dapo_draws() -> None:
    readiness = predict_readiness([(8, 16)] * 3 + [(0, 0)], 8, 32)
    assert readiness is not None
    assert readiness.samples == 3
    assert readiness.accept == pytest.approx(1 - readiness.zero_variance)
    assert readiness.drawn_prompts is not None
    assert readiness.drawn_prompts * readiness.accept >= 32 > (readiness.drawn_prompts - 1) * readiness.accept
    assert f"rl.inflight_batches={readiness.batches}" in describe_readiness(readiness, "dapo")
    assert "DAPO" not in describe_readiness(readiness, "grpo")


def test_no_prediction_without_measured_pass_rates() -> None:
    assert predict_readiness([], 8, 4) is None
    assert predict_readiness([(0, 0)], 8, 4) is None


def test_warning_if_most_groups_have_no_variance() -> None:
    hopeless, fine = predict_readiness([(0, 512)], 4, 8), predict_readiness([(8, 16)], 8, 8)
    assert hopeless is not None
    assert fine is not None
    assert readiness_warning(hopeless, "dapo", compares=True)
    assert readiness_warning(hopeless, "grpo", compares=True)
    assert readiness_warning(hopeless, "ppo", compares=False) is None
    assert readiness_warning(fine, "grpo", compares=True) is None
    assert hopeless.plain()["zero_variance"] > 0.98
