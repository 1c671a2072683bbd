"""Clean text that comes from outside (models, servers, files): thoughts, unpaired surrogates, control characters."""

import re
from typing import Any

REPLACEMENT = "\ufffd"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""C0 control characters except for tab, line feed and carriage return."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Everything that can move a terminal's cursor, start an escape sequence or change the direction of text."""
THOUGHT_TAGS = (
    *(("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>")),
    *(("<thoughts>", "</thoughts>"), ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>")),
    *(("[think]", "[/think]"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"), ("<|channel>thought", "<channel|>")),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
"""Opening and closing tag of each spelling in use, in lower case."""
CLOSING = dict(THOUGHT_TAGS)
TAGS = re.compile("|".join(re.escape(tag) for pair in THOUGHT_TAGS for tag in pair), re.IGNORECASE)
HARMONY_FINAL = "<|channel|>final<|message|>"
"""What precedes the answer in the format of gpt-oss; other channels hold thoughts."""
HARMONY_END = re.compile(r"<\|(?:return|end|call|start)\|>")
BARE_HARMONY = re.compile(r"\s*analysis(?!\s).*?assistantfinal", re.DOTALL)
"""The same format after the special tokens were stripped: `analysisWe need ...assistantfinalThe answer`."""
ANSWER_START = re.compile(r'\s*(?:```\w*\s*)?\{\s*["}]')


def strip_thoughts(text: str, keep: frozenset[str] = frozenset()) -> str:
    """The text after a model's thoughts, in whatever spelling they are marked.

    A closing tag without an opening one ends a thought, because chat templates often put the opening tag into the
    prompt. A thought that is never closed leaves nothing behind it: what it contains is a draft. `keep` holds names of
    tags that are not thoughts here, such as the fields of a structured reply.
    """
    if HARMONY_FINAL in text:
        answer = text.rpartition(HARMONY_FINAL)[2]
        return HARMONY_END.split(answer, maxsplit=1)[0]
    if "<|channel|>" in text:
        return ""
    if bare := BARE_HARMONY.match(text):
        return text[bare.end() :]
    kept: list[str] = []
    start = 0
    expected = ""  # the closing tag of the open thought
    for tag in TAGS.finditer(text):
        name = tag[0].lower()
        if expected:
            if name == expected:
                start, expected = tag.end(), ""
        elif ANSWER_START.match(text, start):  # the tag is part of an object, or stands behind it
            break
        elif name.strip("<>[]/") in keep:
            continue
        elif name in CLOSING:
            kept.append(text[start : tag.start()])
            expected = CLOSING[name]
        else:
            kept, start = [], tag.end()
    answer = "".join(kept) if expected else "".join([*kept, text[start:]])
    return answer if answer.strip() else ""


def replace_surrogates(text: str) -> str:
    """Replace unpaired surrogates, which a reply cut inside a character holds and which no file can store."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def replace_controls(text: str) -> str:
    """Replace control characters (other than tab and line breaks) and unpaired surrogates by U+FFFD."""
    return CONTROL.sub(REPLACEMENT, replace_surrogates(text))


def clean_strings(value: Any) -> Any:
    """The same JSON value without unpaired surrogates in any string."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [clean_strings(item) for item in value]
    if isinstance(value, dict):
        return {clean_strings(key): clean_strings(item) for key, item in value.items()}
    return value


def find_control(value: Any) -> str | None:
    """The first control character in any string of a JSON value, as `U+0000`; None if there is none."""
    if isinstance(value, str):
        found = CONTROL.search(value)
        return f"U+{ord(found[0]):04X}" if found else None
    items = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else []
    return next((control for item in items if (control := find_control(item)) is not None), None)


def printable(text: str) -> str:
    r"""Foreign text that is safe to print: control and direction characters as `\x1b`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
