"""The tokenizer of the model that sees: every word, digit and mark is one token, and so is a picture's placeholder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsrl.data.images.prompt import IMAGE
from dsrl.quickstart.tokens import listing
from dsrl.quickstart.visual.documents import NAMED, prompt
from dsrl.quickstart.visual.pictures import COLOURS, KINDS
from dsrl.quickstart.visual.questions import ALL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPLIT = r" ?[A-Za-z]+| ?#+| ?\d| ?[^\w\s#]|\s+"
"""A word, a digit or a mark with the space before it."""
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


def texts() -> Iterator[str]:
    """Texts in which every word of the corpus stands in each of its places at least once."""
    yield from (prompt(question.text) for question in ALL)
    yield from (prompt(f"Name the {what}.") for what in NAMED)
    words = " ".join([*COLOURS, *KINDS, "-"])
    digits = " ".join(map(str, range(10)))
    yield from (f"Look: {words}, {words} = 2 + 1 = 3 - 1 #### {digits}", "#### 3", "There are 3.")


def build(context: int) -> "PreTrainedTokenizerFast":
    return listing(context, texts(), SPLIT, CHAT_TEMPLATE, (IMAGE,))


def turn(prompt: str) -> str:
    """A user's turn and the beginning of the answer's, as the chat template writes them."""
    return f"<|user|>{prompt}<|assistant|>"
