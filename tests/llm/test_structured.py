import asyncio
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dsrl.data.model import Reply
from dsrl.llm import Request
from dsrl.llm.structured.answer import Answer, ask_until_usable, read_answer, request_object
from dsrl.llm.structured.parse import UnusableError, parse_object
from dsrl.llm.structured.schema import response_format, schema_name, strict_schema


class Sample(BaseModel):
    input: str
    output: str


class Step(BaseModel):
    text: str
    kind: Literal["add", "take"] = "add"


class LongSolution(BaseModel):
    title: str = "none"
    steps: list[Step]
    last: Step | None = None


READABLE = [
    ('{"input": "a", "output": "b"}', "a", "b"),
    ('Sure!\n```json\n{"input": "a", "output": "b"}\n```\nAnything else?', "a", "b"),
    ('```\n{"input": "a", "output": "use ```x```"}\n```', "a", "use ```x```"),
    ('I think {of} a \\frac{1}{2} set {1}: {"input": "a", "output": "{b}"} done', "a", "{b}"),
    ('{"thought": 1} then {"input": "a", "output": "b"}', "a", "b"),
    ('<think>{"input": "draft", "output": "draft"}</think>{"input": "a", "output": "b"}', "a", "b"),
    ('{"input": "a\nb\tc", "output": "b"}', "a\nb\tc", "b"),
    ('{"input": "a\\nb", "output": "say \\"b\\" \\u00e9 \\/"}', "a\nb", 'say "b" é /'),
    ('{"input": "a", "output": "b", "extra": {"x": [1, 2]}}', "a", "b"),
    (r'{"input": "\frac{1}{2} \boxed{4}", "output": "\( \beta \)"}', r"\frac{1}{2} \boxed{4}", r"\( \beta \)"),
    (r'{"input": "$\theta \times \rho \neq$", "output": "\text{cm}"}', r"$\theta \times \rho \neq$", r"\text{cm}"),
    (r'{"input": "$x \ne 3 \to \nu \tan x$", "output": "\nabla"}', r"$x \ne 3 \to \nu \tan x$", r"\nabla"),
    (r'{"input": "\underline{u} \alpha \sqrt{2}", "output": "\forall"}', r"\underline{u} \alpha \sqrt{2}", r"\forall"),
    (r'{"input": "\\frac{1}{2} \\times \\neq", "output": "\\boxed{4}"}', r"\frac{1}{2} \times \neq", r"\boxed{4}"),
    (r'{"input": "one.\nNext.\n\ntext\tcolumn", "output": "\nno\r\nto"}', "one.\nNext.\n\ntext\tcolumn", "\nno\r\nto"),
    (r'{"input": "C:\\new\\table", "output": "ends in \\"}', "C:\\new\\table", "ends in \\"),
]


@pytest.mark.parametrize(("text", "given_input", "output"), READABLE)
def test_parse(text: str, given_input: str, output: str) -> None:
    assert parse_object(text, Sample) == Sample(input=given_input, output=output)


class Keywords(BaseModel):
    keywords: list[str]
    count: int = 0


TAGGED = [
    ("<input>a</input><output>b</output>", "a", "b"),
    ("Well.\n<input>\na\nb\n</input>\n\n<output>\nb </output> bye", "a\nb", "b"),
    ("```xml\n<input>1 < 2?</input>\n<output>yes</output>\n```", "1 < 2?", "yes"),
    (
        r"<input>$\frac{1}{2} \neq \{1\}$</input><output>\boxed{\nu}</output>",
        r"$\frac{1}{2} \neq \{1\}$",
        r"\boxed{\nu}",
    ),
    (
        '<input>a "quoted" {word}</input><output>so <answer>4</answer></output>',
        'a "quoted" {word}',
        "so <answer>4</answer>",
    ),
    ("<think><input>draft</input></think><input>a</input><output>b</output>", "a", "b"),
    ('{"wrong": 1} <input>a</input><output>b</output>', "a", "b"),
    ('<input>{"a": 1}</input><output>b</output>', '{"a": 1}', "b"),
]


@pytest.mark.parametrize(("text", "given_input", "output"), TAGGED)
def test_fields_between_tags(text: str, given_input: str, output: str) -> None:
    assert parse_object(text, Sample) == Sample(input=given_input, output=output)


def test_fields_that_are_no_text_are_json_between_tags() -> None:
    text = '<keywords>["sea", "salt"]</keywords><count>\n2\n</count>'
    assert parse_object(text, Keywords) == Keywords(keywords=["sea", "salt"], count=2)
    with pytest.raises(UnusableError, match="keywords") as caught:
        parse_object("<keywords>sea, salt</keywords>", Keywords)
    assert caught.value.kind == "wrong fields"


@given(st.text(alphabet=st.characters(exclude_characters="<", exclude_categories=["Cs", "Cc"])), st.text('ab\\\n{}"$ '))
def test_any_text_comes_back_from_between_tags(first: str, second: str) -> None:
    value = {"input": first.strip(), "output": second.strip()}
    spelled = f"<input>\n{value['input']}\n</input>\n<output>{value['output']}</output>"
    if "{" not in spelled:
        assert parse_object(spelled, Sample).model_dump() == value


UNREADABLE = [
    ("", "not JSON"),
    ("no braces at all", "not JSON"),
    ('{"input": "a", "output": "b"', "not JSON"),
    ("{'input': 'a', 'output': 'b'}", "not JSON"),
    ('["input", "output"]', "not JSON"),
    ('{"input": "a"}', "wrong fields"),
    ('{"input": "a", "output": 3}', "wrong fields"),
    ('{"input": "a", "output": null}', "wrong fields"),
    ('{"a":' * 5000, "not JSON"),
    ('{"input":' + "[" * 100_000, "not JSON"),
    ("<input>a</input>", "wrong fields"),
    ("<input>a<output>b</output>", "wrong fields"),
    ("input: a, output: b", "not JSON"),
    ("__import__('os').system('true')", "not JSON"),
]


@pytest.mark.parametrize(("text", "kind"), UNREADABLE)
def test_parse_says_what_is_wrong(text: str, kind: str) -> None:
    with pytest.raises(UnusableError) as caught:
        parse_object(text, Sample)
    assert caught.value.kind == kind


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_escaped_json_without_control_characters_comes_back(before: str, text: str) -> None:
    text = "".join(letter for letter in text if letter not in "\b\f")
    value = {"input": text, "output": text[::-1]}
    for spelled in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        if "\\t" not in spelled and "\\r" not in spelled and "\\n" not in spelled:
            assert parse_object(before.replace("{", "(") + spelled, Sample).model_dump() == value


READ = [
    (Reply(text=None, error="503"), "no answer"),
    (Reply(text="", finish_reason="content_filter"), "refused"),
    (Reply(text="I can't help with that", finish_reason="refusal"), "refused"),
    (Reply(text='{"input": "a', finish_reason="length"), "truncated"),
    (Reply(text='{"input": "a"}', finish_reason="length"), "truncated"),
    (Reply(text="hm", finish_reason="stop"), "not JSON"),
    (Reply(text='{"input": "a", "output": "b"} and then', finish_reason="length"), "truncated"),
]


@pytest.mark.parametrize(("reply", "error"), READ)
def test_failures_are_told_apart(reply: Reply, error: str | None) -> None:
    answer = read_answer(reply, Sample)
    assert answer.error == error
    assert (answer.value is None) == bool(answer.detail) == (error is not None)


def test_one_repair_turn_shows_the_reply_and_the_error() -> None:
    asked: list[Request] = []

    async def complete(request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        asked.append(request)
        return [Reply(text="sorry" if len(asked) == 1 else '{"input": "a"}', call=f"{len(asked)}:{first}")]

    request = Request(({"role": "user", "content": "write"},), 0.7, 1.0, 100, Sample)
    answer = asyncio.run(request_object(complete, request, Sample, 5))
    assert (answer.error, answer.calls) == ("wrong fields", ("1:5", "2:5"))
    assert len(asked) == 2
    assert asked[1].messages[:2] == (*request.messages, {"role": "assistant", "content": "sorry"})
    assert "no JSON object" in asked[1].messages[2]["content"]


def test_schema_is_closed_complete_and_without_references() -> None:
    text = json.dumps(schema := strict_schema(LongSolution))
    assert "$ref" not in text
    assert '"default"' not in text
    assert schema["required"] == ["title", "steps", "last"]
    assert set(schema["properties"]) == {"title", "steps", "last"}
    step = schema["properties"]["steps"]["items"]
    assert (step["additionalProperties"], step["required"]) == (False, ["text", "kind"])


class Bounded(BaseModel):
    text: str = Field(min_length=1, max_length=5, pattern="^a")
    marks: list[int] = Field(min_length=1, max_length=3)
    format: float = Field(ge=0, lt=1)


def test_what_strict_decoding_may_refuse_is_left_to_the_reader_of_the_reply() -> None:
    number = {"text": {"type": "string"}, "marks": {"type": "array", "items": {"type": "integer"}}}
    assert strict_schema(Bounded)["properties"] == {**number, "format": {"type": "number"}}
    with pytest.raises(UnusableError, match="text: String should have at least 1"):
        parse_object('{"text": "", "marks": [1], "format": 0.5}', Bounded)


def test_response_format_by_mode() -> None:
    assert schema_name(LongSolution) == "long_solution"
    assert response_format(Sample, "text") is None
    assert response_format(Sample, "object") == {"type": "json_object"}
    strict = response_format(Sample, "schema")
    assert strict is not None
    assert (strict["json_schema"]["name"], strict["json_schema"]["strict"]) == ("sample", True)


@pytest.mark.parametrize(("good", "asked"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_what_a_stage_cannot_do_without_is_asked_for_again(good: int, asked: int) -> None:
    indices = []

    async def ask(
        messages: list[dict[str, str]], schema: type[Sample], index: int, temperature: float
    ) -> Answer[Sample]:
        indices.append(index)
        value = Sample(input="a", output="b") if index == good else None
        return Answer(value, None if value else "truncated", "", (f"c:{index}",))

    answer = asyncio.run(ask_until_usable(ask, [], Sample, temperature=0.0))
    assert indices == list(range(asked))
    assert (answer.value is not None) == (good < 3)
