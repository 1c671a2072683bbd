import json
from pathlib import Path

import pytest

from dsrl.stages.train import progress


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_validation_joins_the_row_of_its_step(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p", {"step": 0, "validation": 0.1}, {"step": 1, "reward": 0.5}, {"step": 1, "validation": 0.3}
    )
    rows = progress.read(path)
    assert rows == [{"step": 0, "validation": 0.1}, {"step": 1, "reward": 0.5, "validation": 0.3}]
    figures = progress.figures(rows)
    assert figures["validation"] == [{"step": 0, "right": 0.1}, {"step": 1, "right": 0.3}]
    assert figures["series"] == rows[1:]


def test_what_came_after_a_checkpoint_is_forgotten_with_a_half_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p", *({"step": step} for step in range(5)))
    with path.open("a") as file:
        file.write('{"step": 5, "rew')
    progress.cut(path, 2)
    assert [row["step"] for row in progress.read(path)] == [0, 1, 2]
    progress.cut(path, -1)
    assert progress.read(path) == []


def test_first_and_last_reward_are_means_over_a_tenth_of_the_steps() -> None:
    rows = [{"step": step, "reward": float(step)} for step in range(1, 41)]
    figures = progress.figures(rows)
    assert (figures["reward_first"], figures["reward_last"]) == (2.5, 38.5)


def test_supervised_training_has_no_reward() -> None:
    figures = progress.figures([{"step": 1, "loss": 0.5}])
    assert (figures["reward_first"], figures["reward_last"]) == (None, None)


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 5000])
def test_the_series_is_thinned_evenly(count: int) -> None:
    rows = [{"step": step} for step in range(count)]
    thin = progress.thinned(rows, 200)
    assert len(thin) == min(count, 200)
    assert (thin[0], thin[-1]) == (rows[0], rows[-1])


@pytest.mark.parametrize(("shares", "warned"), [((1.0, 1.0), True), ((1.0, 0.9), False), ((), False)])
def test_rewards_that_never_differ_are_warned_of(shares: tuple[float, ...], warned: bool) -> None:
    rows = [{"step": step, "zero_variance": share} for step, share in enumerate(shares, 1)]
    assert bool(progress.warnings(rows)) == warned
