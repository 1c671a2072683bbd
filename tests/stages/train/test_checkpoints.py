from pathlib import Path

import pytest

from dsrl.stages.train import checkpoints
from dsrl.stages.train.checkpoints import NEEDED_TO_RESUME


def save(folder: Path, step: int, validation: float | None, *, whole: bool = True) -> None:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    for name in ("model.safetensors", *NEEDED_TO_RESUME):
        (place / name).touch()
    if whole:
        checkpoints.mark(place, step, validation)


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
def test_the_best_is_chosen_and_of_equals_the_later(
    tmp_path: Path, validations: tuple[float | None, ...], keep: str, step: int
) -> None:
    for number, validation in enumerate(validations, 1):
        save(tmp_path, number * 10, validation)
    assert checkpoints.chosen(tmp_path, keep).step == step


def test_only_what_may_be_chosen_or_gone_on_from_is_kept(tmp_path: Path) -> None:
    for step, validation in ((10, 0.2), (20, 0.6), (30, 0.4)):
        save(tmp_path, step, validation)
        checkpoints.prune(tmp_path, "best")
    assert [checkpoint.step for checkpoint in checkpoints.whole(tmp_path)] == [20, 30]
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    assert latest.step == 30
    assert not checkpoints.chosen(tmp_path, "best").resumable


def test_a_half_written_checkpoint_does_not_count_and_is_swept_away(tmp_path: Path) -> None:
    save(tmp_path, 10, 0.2)
    save(tmp_path, 20, 0.9, whole=False)
    (tmp_path / "README.md").touch()
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    assert latest.step == 10
    checkpoints.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "checkpoint-10"]


def test_a_fresh_training_goes_on_from_nothing(tmp_path: Path) -> None:
    checkpoints.sweep(tmp_path / "none")
    assert checkpoints.latest(tmp_path / "none") is None
