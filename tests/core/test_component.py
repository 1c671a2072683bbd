import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from dsrl.core.component import Component, Many, component, record, to_key_value
from dsrl.core.digest import digest


@component("tests.test_component.Lamp")
class Lamp(Component):
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"switches"})

    watts: float = Field(gt=0)
    colours: Many[str] = ()
    switches: int = 1


@component("tests.test_component.Room")
class Room(Component):
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


def test_excluded_fields_stay_out_of_the_key_and_all_others_are_in() -> None:
    def of(**lamp: Any) -> str:
        return digest(Room(lamp=Lamp(**{"watts": 40.0, **lamp})).key_fields())

    assert of() == of(switches=5)
    assert len({of(), of(watts=41.0), of(colours=("red",)), of(colours=("red", "blue"))}) == 4


def test_name_and_version_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = Lamp(watts=40.0)
    before = lamp.key_fields()
    monkeypatch.setattr(Lamp, "version", 2)
    assert lamp.key_fields() == {**before, "version": 2}
    assert before["component"] == "tests.test_component.Lamp"


def test_everything_that_a_component_may_hold_can_stand_in_a_key() -> None:
    value = {"set": {"b", "a"}, "path": Path("x"), 3: (Point(x=1), None, True), "part": Lamp(watts=1.0)}
    plain = to_key_value(value)
    assert plain["set"] == ["a", "b"]
    assert plain["path"] == "x"
    assert plain["3"] == [{"x": 1, "y": 0.0}, None, True]
    assert plain["part"]["watts"] == 1.0


def test_what_cannot_stand_in_a_key_is_refused_rather_than_left_out() -> None:
    with pytest.raises(TypeError, match="key"):
        to_key_value({"thing": object()})


def test_a_name_belongs_to_one_class_wherever_it_is_defined() -> None:
    with pytest.raises(TypeError, match="taken by Lamp"):

        @component("tests.test_component.Lamp")
        class Torch(Component):
            watts: float = 1.0


def test_a_class_without_a_name_cannot_stand_in_a_key() -> None:
    @component(None)
    class Nameless(Lamp):
        pass

    with pytest.raises(TypeError, match="component name"):
        Nameless(watts=1.0).key_fields()


def test_a_field_added_later_leaves_keys_alone_until_it_is_used() -> None:
    @component("tests.test_component.Later")
    class Before(Component):
        watts: float

    before = Before(watts=1.0).key_fields()

    @component("tests.test_component.Later2")
    class Later(Component):
        added_fields: ClassVar[dict[str, Any]] = {"dimmed": None}

        watts: float
        dimmed: float | None = None

    known = {**before, "component": "tests.test_component.Later2"}
    assert Later(watts=1.0).key_fields() == known
    assert Later(watts=1.0, dimmed=0.5).key_fields() == {**known, "dimmed": 0.5}
