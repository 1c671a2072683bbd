import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from dsrl.core.component import Many, Part, identify, part, record
from dsrl.core.digest import digest


@part
class Lamp(Part):
    speed: ClassVar[frozenset[str]] = frozenset({"switches"})

    watts: float = Field(gt=0)
    colours: Many[str] = ()
    switches: int = 1


@part
class Room(Part):
    lamp: Lamp
    sizes: dict[str, int] = Field(default_factory=dict)


@record
class Point:
    x: int
    y: float = 0.0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"watts": "40"},
        {"watts": True},
        {"watts": -1.0},
        {"watts": 40.0, "volts": 12},
        {"watts": 40.0, "colours": "red"},
        {"watts": 40.0, "colours": [1]},
        {"watts": 40.0, "switches": 1.0},
    ],
)
def test_a_wrong_value_is_refused_at_construction(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Lamp(**values)


def test_lists_do_for_tuples_and_integers_for_floats() -> None:
    lamp = Lamp(watts=40, colours=["red", "blue"])  # type: ignore[arg-type]
    assert (lamp.watts, lamp.colours) == (40.0, ("red", "blue"))


@pytest.mark.parametrize("thing", [Lamp(watts=1.0), Point(x=1)])
def test_descriptions_and_records_are_frozen(thing: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, dataclasses.fields(thing)[0].name, 2)


def test_speed_knobs_stay_out_of_the_identity_and_everything_else_is_in() -> None:
    def of(**lamp: Any) -> str:
        return digest(Room(lamp=Lamp(**{"watts": 40.0, **lamp})).identity())

    assert of() == of(switches=5)
    assert len({of(), of(watts=41.0), of(colours=("red",)), of(colours=("red", "blue"))}) == 4


def test_class_and_version_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = Lamp(watts=40.0)
    before = lamp.identity()
    monkeypatch.setattr(Lamp, "version", 2)
    assert lamp.identity() == {**before, "version": 2}
    assert before["class"].endswith("Lamp")


def test_everything_a_description_may_hold_has_an_identity() -> None:
    value = {"set": {"b", "a"}, "path": Path("x"), 3: (Point(x=1), None, True), "part": Lamp(watts=1.0)}
    plain = identify(value)
    assert plain["set"] == ["a", "b"]
    assert plain["path"] == "x"
    assert plain["3"] == [{"x": 1, "y": 0.0}, None, True]
    assert plain["part"]["watts"] == 1.0


def test_what_has_no_identity_is_refused_rather_than_left_out() -> None:
    with pytest.raises(TypeError, match="no identity"):
        identify({"thing": object()})
