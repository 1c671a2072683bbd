"""Thoughts, control characters and surrogates in text from models and servers."""

import pytest

from dsrl.core.text import THOUGHT_TAGS, clean_strings, find_control, printable, replace_controls, strip_thoughts

DRAFT, FINAL = '{"input": "draft"}', '{"input": "final"}'


@pytest.mark.parametrize(("opening", "closing"), THOUGHT_TAGS)
def test_closed_thought_is_removed_in_every_spelling(opening: str, closing: str) -> None:
    for tags in ((opening, closing), (opening.upper(), closing.upper())):
        assert strip_thoughts(f"{tags[0]}First {DRAFT}, but no.{tags[1]}\n{FINAL}").strip() == FINAL
        assert strip_thoughts(f"First {DRAFT}, but no.{tags[1]}\n{FINAL}").strip() == FINAL


@pytest.mark.parametrize(("opening", "closing"), THOUGHT_TAGS)
def test_unclosed_thought_leaves_nothing(opening: str, closing: str) -> None:
    assert strip_thoughts(f"{opening}\nA draft: {DRAFT}\nBut is that") == ""
    assert DRAFT not in strip_thoughts(f"Let me see. {opening} {DRAFT} and so on")
    assert strip_thoughts(f"{opening} {DRAFT} {closing} {opening} {DRAFT}").strip() == ""


HARMONY = [
    (f"<|channel|>analysis<|message|>Draft {DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}", FINAL),
    (f"<|channel|>analysis<|message|>{DRAFT}<|end|><|channel|>final<|message|>{FINAL}<|return|>", FINAL),
    (f"<|channel|>analysis<|message|>Draft {DRAFT} is cut", ""),
    (f"analysisWe need a draft {DRAFT}. No.assistantfinal{FINAL}", FINAL),
]


@pytest.mark.parametrize(("text", "answer"), HARMONY)
def test_harmony_channels(text: str, answer: str) -> None:
    assert strip_thoughts(text).strip() == answer


KEPT = [
    "",
    "The answer is 4.\n#### 4",
    FINAL,
    '{"input": "What does </think> mean?", "output": "<think> opens it"}',
    '```json\n{"input": "the tag <reasoning>"}\n```',
    "a < b and c > d, [x]",
]


@pytest.mark.parametrize("text", KEPT)
def test_text_without_thoughts_is_unchanged(text: str) -> None:
    assert strip_thoughts(text) == text


def test_several_thoughts_and_fields_named_like_tags() -> None:
    assert strip_thoughts("<think>a</think>So <think>b</think>the answer").strip() == "So the answer"
    fields = "<reasoning>because</reasoning><answer>4</answer>"
    assert strip_thoughts(fields, frozenset({"reasoning", "answer"})) == fields


def test_long_input_is_linear() -> None:
    for text in ("<think>" * 150_000, "</think>" * 20_000, "x" * 1_000_000, "analysis" * 120_000):
        strip_thoughts(text)


def test_surrogates_and_controls() -> None:
    assert clean_strings({"a": ["smile \ud83d", 1, None]}) == {"a": ["smile \ufffd", 1, None]}
    assert replace_controls("a\x00b\x1b[31m\tc\r\n\ud83d") == "a\ufffdb\ufffd[31m\tc\r\n\ufffd"
    assert replace_controls("caf\xe9 \U0001f600") == "caf\xe9 \U0001f600"
    assert find_control({"a": ["x\ty\n", {"b": "caf\x00e9"}]}) == "U+0000"
    assert find_control([1, None, "fine"]) is None


def test_printable_text_has_no_escape_sequences() -> None:
    assert printable("\x1b]0;title\x07 red\x1b[31m \u202eabc\nnext\ttab") == (
        "\\x1b]0;title\\x07 red\\x1b[31m \\u202eabc\nnext\ttab"
    )
