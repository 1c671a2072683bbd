from pathlib import Path

import pytest

from dsrl.stages.train.checkpoints import (
    NEEDED_TO_RESUME,
    choose_checkpoint,
    complete_checkpoints,
    latest_checkpoint,
    mark_complete,
    prune,
    remove_incomplete,
)


def save(folder: Path, step: int, validation: float | None, *, complete: bool = True) -> None:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", *NEEDED_TO_RESUME):
        (checkpoint / name).touch()
    if complete:
        mark_complete(checkpoint, step, validation)


@pytest.mark.parametrize(
    ("validations", "keep", "step"),
    [
        ((0.1, 0.5, 0.3), "best", 20),
        ((0.5, 0.5, 0.3), "best", 20),
        ((0.5, 0.3, 0.5), "best", 30),
        ((0.5, 0.3, 0.1), "last", 30),
        ((None, None, None), "best", 30),
    ],
)
def test_best_checkpoint_is_chosen_and_the_later_one_on_ties(
    tmp_path: Path, validations: tuple[float | None, ...], keep: str, step: int
) -> None:
    for number, validation in enumerate(validations, 1):
        save(tmp_path, number * 10, validation)
    assert choose_checkpoint(tmp_path, keep).step == step


def test_prune_keeps_best_and_last_and_drops_the_optimizer_state_of_the_best(tmp_path: Path) -> None:
    for step, validation in ((10, 0.2), (20, 0.6), (30, 0.4)):
        save(tmp_path, step, validation)
        prune(tmp_path, "best")
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [20, 30]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.step == 30
    assert not choose_checkpoint(tmp_path, "best").resumable


def test_incomplete_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    save(tmp_path, 10, 0.2)
    save(tmp_path, 20, 0.9, complete=False)
    (tmp_path / "README.md").touch()
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.step == 10
    remove_incomplete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "checkpoint-10"]


def test_new_training_has_nothing_to_resume_from(tmp_path: Path) -> None:
    remove_incomplete(tmp_path / "none")
    assert latest_checkpoint(tmp_path / "none") is None
