from typing import Any

import pytest
from jinja2 import UndefinedError

from dsrl import prompts
from dsrl.data.task import Demo, Task
from dsrl.graders import Number

TASK = Task(
    name="sums", instruction="Add <b>&</b> {{ x }}.", answer=Number(), demos=(Demo(input="1?", output="#### 1"),)
)
VALUES: dict[str, dict[str, Any]] = {
    "task": {"demos": TASK.demos, "pattern": None},
    "pattern": {"demos": TASK.demos, "pattern": None},
    "keywords": {"demos": TASK.demos, "pattern": "p", "count": 3},
    "generate": {"demos": TASK.demos, "pattern": "p", "passage": "sea", "picture": False, "index": 0},
    "harder": {"demos": (), "pattern": None, "question": "1?", "images": 0},
    "quality": {"demos": (), "pattern": None, "question": "1?", "rewritten": "2?", "images": 0},
    "battle": {"demos": (), "pattern": None, "first": "1?", "second": "2?"},
    "rewrite": {"demos": (), "pattern": None, "direction": "harder", "input": "1?", "answer": "1", "images": 0},
    "self_instruct": {"demos": TASK.demos, "pattern": None, "index": 0},
    "contexts": {"demos": (), "pattern": None, "count": 3},
    "instance_seed": {"demos": (), "pattern": None, "context": "sea", "index": 0},
    "constrained": {"demos": (), "pattern": None, "context": "sea", "seed": "a boat", "label": "yes"},
    "correct": {"demos": (), "pattern": None, "input": "1?", "answer": "1"},
    "concepts": {"demos": (), "pattern": None, "passage": "sea"},
    "recombine": {"demos": (), "pattern": None, "topics": ["sea"], "concepts": ["boat"], "passages": ["a"], "index": 0},
}


FORMS: dict[str, dict[str, Any]] = {
    "repair": {"detail": "no <b>", "schema": '{"type": "object"}'},
    "object": {"schema": '{"type": "object"}'},
    "tags": {"fields": ["input", "output"]},
}
"""Templates about the form of a reply, independent of the task."""


def test_every_template_is_covered() -> None:
    assert {path.stem for path in prompts.FOLDER.glob("*.jinja")} == {*VALUES, *FORMS}


@pytest.mark.parametrize("name", FORMS)
def test_form_templates_contain_their_values(name: str) -> None:
    text = prompts.render(name, **FORMS[name])
    for value in FORMS[name].values():
        assert all(part in text for part in ([value] if isinstance(value, str) else value))
    assert text == text.strip()
    with pytest.raises(UndefinedError):
        prompts.render(name)


@pytest.mark.parametrize("name", VALUES)
def test_templates_contain_task_and_output_format_unescaped(name: str) -> None:
    text = prompts.render(name, task=TASK, **VALUES[name])
    assert TASK.instruction in text
    assert TASK.output_instruction in text
    assert text == text.strip()
    assert "\n\n\n" not in text


@pytest.mark.parametrize(("name", "missing"), [(name, missing) for name in VALUES for missing in VALUES[name]])
def test_missing_value_is_an_error(name: str, missing: str) -> None:
    given = {key: value for key, value in VALUES[name].items() if key != missing}
    with pytest.raises(UndefinedError, match=missing):
        prompts.render(name, task=TASK, **given)


@pytest.mark.parametrize("name", VALUES)
def test_source_contains_included_templates(name: str) -> None:
    assert "task.instruction" in prompts.source(name)


def test_constrained_without_label_asks_for_the_answer_first() -> None:
    texts = [
        prompts.render("constrained", task=TASK, **{**VALUES["constrained"], "label": one}) for one in ("yes", None)
    ]
    assert "must be: yes" in texts[0]
    assert "must be" not in texts[1]
    assert "Settle on its right answer first" in texts[1]


def test_generate_without_passage_and_demos_does_not_mention_them() -> None:
    text = prompts.render("generate", task=TASK, **{**VALUES["generate"], "passage": None, "demos": ()})
    assert "passage" not in text.lower()
    assert "example" not in text.lower()
