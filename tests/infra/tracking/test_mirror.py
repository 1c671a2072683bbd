from typing import Any

import pytest

from dsrl.infra.tracking import Tracking
from dsrl.infra.tracking.series import Point
from dsrl.infra.tracking.wandb_mirror import Mirror, rows


def test_points_of_one_moment_are_one_row_with_their_place() -> None:
    points = [
        Point("live/a", 1.0, 0, 5), Point("live/b", 2.0, 0, 5), Point("train/reward", 0.5, 0, 1),
        Point("train/reward", 0.6, 0, 2), Point("score/n", 3.0, 0, 0),
    ]  # fmt: skip
    assert list(rows(points)) == [
        {"live/seconds": 5.0, "live/a": 1.0, "live/b": 2.0},
        {"train/step": 1.0, "train/reward": 0.5},
        {"train/step": 2.0, "train/reward": 0.6},
        {"score/n": 3.0},
    ]


def test_without_being_asked_it_does_nothing() -> None:
    mirror = Mirror({"wandb": False})
    mirror.log([Point("train/reward", 0.5, 0, 1)])
    mirror.finish({"status": "FINISHED"}, [])
    assert mirror.error is None


def test_its_failure_is_told_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Mirror, opening: dict[str, Any]) -> None:
        raise PermissionError("api key: not logged in\nand more")

    monkeypatch.setattr(Mirror, "_begin", refuse)
    mirror = Mirror({"wandb": True})
    mirror.log([Point("train/reward", 0.5, 0, 1)])
    mirror.finish({"status": "FAILED"}, [])
    assert mirror.error == "PermissionError: api key: not logged in"
    assert "not logged in" in capsys.readouterr().err


def test_a_package_that_is_missing_is_told_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.infra.tracking.tracking.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'dsrl\[wandb\]'"):
        Tracking(wandb=True)
