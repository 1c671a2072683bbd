import random

import pytest

from dsrl.stages.train.readiness import readiness, warning, without_signal, words


def test_a_group_of_one_never_has_a_signal() -> None:
    assert without_signal(3, 8, 1) == pytest.approx(1.0)


def test_two_replies_agree_as_often_as_the_pass_rate_says() -> None:
    """With many rollouts the rate is known: p squared and its counterpart."""
    assert without_signal(300_000, 1_000_000, 2) == pytest.approx(0.3**2 + 0.7**2, abs=1e-4)


@pytest.mark.parametrize(("right", "valid", "responses"), [(1, 4, 8), (0, 16, 4), (7, 8, 16), (4, 8, 2)])
def test_the_closed_form_is_what_drawing_gives(right: int, valid: int, responses: int) -> None:
    draw = random.Random(1)
    rates = [draw.betavariate(right + 0.5, valid - right + 0.5) for _ in range(40_000)]
    drawn = sum(rate**responses + (1 - rate) ** responses for rate in rates) / len(rates)
    assert without_signal(right, valid, responses) == pytest.approx(drawn, abs=0.01)


def test_a_larger_group_has_a_signal_more_often() -> None:
    shares = [without_signal(2, 16, responses) for responses in (2, 4, 8, 16, 64)]
    assert shares == sorted(shares, reverse=True)


def test_what_dapo_draws_follows_from_the_share_that_it_accepts() -> None:
    found = readiness([(8, 16)] * 3 + [(0, 0)], 8, 32)
    assert found is not None
    assert found.samples == 3
    assert found.accept == pytest.approx(1 - found.zero_variance)
    assert found.drawn_prompts is not None
    assert found.drawn_prompts * found.accept >= 32 > (found.drawn_prompts - 1) * found.accept
    assert "DAPO will draw about" in words(found, "dapo")
    assert "DAPO" not in words(found, "grpo")


def test_nothing_is_said_where_nothing_was_measured() -> None:
    assert readiness([], 8, 4) is None
    assert readiness([(0, 0)], 8, 4) is None


def test_a_training_that_would_starve_is_warned_of() -> None:
    hopeless, fine = readiness([(0, 512)], 4, 8), readiness([(8, 16)], 8, 8)
    assert hopeless is not None
    assert fine is not None
    assert "throw away 100%" in str(warning(hopeless, "dapo", compares=True))
    assert "teach nothing" in str(warning(hopeless, "grpo", compares=True))
    assert warning(hopeless, "ppo", compares=False) is None
    assert warning(fine, "grpo", compares=True) is None
    assert hopeless.plain()["zero_variance"] > 0.98
