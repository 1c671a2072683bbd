"""The base model's tokenizer: every word and number of a counting story is one token, every other text is bytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

from dsrl.quickstart.documents import prompt
from dsrl.quickstart.stories import GAINS, LOSSES, NAMES, NOUNS, Change, Story

PAD, END, ROLES = "<|pad|>", "<|end|>", ("<|user|>", "<|assistant|>", "<|system|>")
SPLIT = r"\d{1,2}| ?[^\d\s]+ ?|\s+"
"""A word with the spaces around it, a number of one or two digits, or white space."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def texts() -> Iterable[str]:
    """Texts in which every word of the corpus stands in each of its places at least once."""
    changes = tuple(Change(form, 2) for form in GAINS + LOSSES)
    for name, noun in (*((name, NOUNS[0]) for name in NAMES), *((NAMES[0], noun) for noun in NOUNS)):
        yield prompt(Story(name, noun, 9, changes))
    yield from ("9-2=7, 7+2=9 #### 9", "#### 9", "The answer is 9.")


def build(context: int) -> "PreTrainedTokenizerFast":
    """That of the model for counting stories."""
    return listing(context, (*texts(), *map(str, range(100))), SPLIT, CHAT_TEMPLATE)


def listing(
    context: int, texts: Iterable[str], split: str, chat_template: str, special: tuple[str, ...] = ()
) -> "PreTrainedTokenizerFast":
    """A Unigram tokenizer over bytes whose vocabulary is listed, not learned: a whole word outweighs its bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    apart = pre_tokenizers.Split(Regex(split), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    parts = pre_tokenizers.Sequence([apart, byte_level])
    words = {word for text in texts for word, _ in parts.pre_tokenize_str(text)}
    alphabet = sorted(byte_level.alphabet())
    own = [PAD, END, *ROLES, *special]
    listed = [(token, 0.0) for token in own] + [(token, -20.0) for token in alphabet]
    listed += [(word, -1.0) for word in sorted(words - set(alphabet))]
    tokenizer = Tokenizer(models.Unigram(listed, unk_id=0))
    tokenizer.add_special_tokens(own)
    tokenizer.pre_tokenizer, tokenizer.decoder = parts, decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[*ROLES, *special],
        chat_template=chat_template, model_max_length=context, padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def turn(prompt: str) -> str:
    """A user's turn and the beginning of the answer's, as the chat template writes them."""
    return f"<|user|>{prompt}<|assistant|>"
