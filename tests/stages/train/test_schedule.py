import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.errors import UserError
from dsrl.stages.train.schedule import num_steps, order


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_each_epoch_sees_every_row_once(num_rows: int, epochs: int, seed: int) -> None:
    rows = order(num_rows, num_rows * epochs, seed)
    for epoch in range(epochs):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(9, 27, 1)[:12] == order(9, 12, 1)
    assert order(9, 9, 1) != order(9, 9, 2)
    assert order(9, 18, 1)[:9] != order(9, 18, 1)[9:]


@pytest.mark.parametrize(
    ("num_rows", "per_step", "epochs", "max_steps", "steps"),
    [(500, 4, 5, None, 625), (10, 4, 1, None, 2), (4, 4, 1, None, 1), (10, 4, 1, 7, 7)],
)
def test_the_number_of_updates(num_rows: int, per_step: int, epochs: int, max_steps: int | None, steps: int) -> None:
    assert num_steps(num_rows, per_step, epochs, max_steps, "rl.prompts_per_step") == steps


def test_fewer_samples_than_a_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"3 samples, rl\.prompts_per_step=4"):
        num_steps(3, 4, 5, None, "rl.prompts_per_step")
