import json

import pytest

from dsrl.graders import Choice, Grader, Number, Text
from dsrl.graders.rebuild import rebuild


@pytest.mark.parametrize("grader", [Number(), Number(marker="=>", tolerance=0.5), Choice(options="ABC"), Text()])
def test_a_grader_comes_back_through_json(grader: Grader) -> None:
    assert rebuild(json.loads(json.dumps(grader.key_fields()))) == grader


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 99},
        {"component": "data.sampling"},
        {"component": "graders.unheard_of"},
        {"component": "os.path"},
    ],
)
def test_anything_else_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises((ValueError, AttributeError)):
        rebuild({**Number().key_fields(), **changed})
