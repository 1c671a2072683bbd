"""Schemas are sent with every structured request, so a request's digest depends on a class's name and docstring.

Renaming such a class or rewording its docstring would orphan every reply that was paid for with it.
"""

import pytest
from pydantic import BaseModel

from dsrl.core.digest import digest
from dsrl.llm.structured.schema import response_format
from dsrl.stages.difficulty.stage import Judgement as BattleJudgement
from dsrl.stages.generate.candidate import SampleDraft
from dsrl.stages.generate.generate import Pattern
from dsrl.stages.generate.synthllm import Concepts
from dsrl.stages.generate.targen import Contexts, InstanceSeed
from dsrl.stages.retrieve.stage import Keywords
from dsrl.stages.rewrite.synthrl.judges import Judgement as QualityJudgement
from dsrl.stages.rewrite.synthrl.stage import QuestionDraft

SCHEMAS = {
    BattleJudgement: "6ebc399adad2155e",
    Concepts: "0deabd464605e123",
    Contexts: "614f28df2fc6adb1",
    InstanceSeed: "0a69fb13fab7e1a6",
    Keywords: "bf313207ab64ca63",
    Pattern: "b4ccfe170ddffa45",
    QualityJudgement: "63e320a673cf1b49",
    QuestionDraft: "645a89c9202732ac",
    SampleDraft: "926b41bd31047389",
}


@pytest.mark.parametrize(("schema", "expected"), SCHEMAS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_schema_sent_to_the_teacher_has_not_changed(schema: type[BaseModel], expected: str) -> None:
    assert digest(response_format(schema, "schema"), 16) == expected
