"""The vision-language model's tokenizer: each word, digit, mark and image placeholder is one token."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsrl.data.sample import IMAGE
from dsrl.quickstart.tokens import build_tokenizer
from dsrl.quickstart.visual.documents import NAMED, question_prompt
from dsrl.quickstart.visual.questions import ALL
from dsrl.quickstart.visual.scenes import COLOURS, KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPLIT = r" ?[A-Za-z]+| ?#+| ?\d| ?[^\w\s#]|\s+"
"""A word, a digit or a mark, with the space before it."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% generation %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary_texts() -> Iterator[str]:
    """Texts in which every word of the corpus occurs with each of its surroundings."""
    yield from (question_prompt(question.text) for question in ALL)
    yield from (question_prompt(f"Name the {what}.") for what in NAMED)
    words = " ".join([*COLOURS, *KINDS, "-"])
    digits = " ".join(map(str, range(10)))
    yield from (f"Look: {words}, {words} = 2 + 1 = 3 - 1 #### {digits}", "#### 3", "There are 3.")


def visual_tokenizer(context: int) -> "PreTrainedTokenizerFast":
    return build_tokenizer(context, vocabulary_texts(), SPLIT, CHAT_TEMPLATE, (IMAGE,))
