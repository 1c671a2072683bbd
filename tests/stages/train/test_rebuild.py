import json

import pytest

from dsrl.graders import Choice, Grader, Number, Text
from dsrl.stages.train.grader_from_identity import rebuild


@pytest.mark.parametrize("grader", [Number(), Number(marker="=>", tolerance=0.5), Choice(options="ABC"), Text()])
def test_a_grader_comes_back_through_json(grader: Grader) -> None:
    assert rebuild(json.loads(json.dumps(grader.identity()))) == grader


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 99},
        {"class": "dsrl.data.task.Demo"},
        {"class": "dsrl.data.model.Sampling", "marker": 1},
        {"class": "os.path"},
    ],
)
def test_anything_else_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises((ValueError, AttributeError)):
        rebuild({**Number().identity(), **changed})
