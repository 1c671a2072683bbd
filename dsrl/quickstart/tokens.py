"""The base model's tokenizer: each word and number of a counting story is one token, other text is split into bytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dsrl.quickstart.documents import story_prompt
from dsrl.quickstart.stories import GAINS, LOSSES, NAMES, NOUNS, Change, Story

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, ROLES = "<|pad|>", "<|end|>", ("<|user|>", "<|assistant|>", "<|system|>")
SPLIT = r"\d{1,2}| ?[^\d\s]+ ?|\s+"
"""A word with the spaces around it, a number of one or two digits, or white space."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary_texts() -> Iterable[str]:
    """Texts in which every word of the corpus occurs with each of its surroundings."""
    changes = tuple(Change(form, 2) for form in GAINS + LOSSES)
    for name, noun in (*((name, NOUNS[0]) for name in NAMES), *((NAMES[0], noun) for noun in NOUNS)):
        yield story_prompt(Story(name, noun, 9, changes))
    yield from ("9-2=7, 7+2=9 #### 9", "#### 9", "The answer is 9.")


def story_tokenizer(context: int) -> "PreTrainedTokenizerFast":
    return build_tokenizer(context, (*vocabulary_texts(), *map(str, range(100))), SPLIT, CHAT_TEMPLATE)


def build_tokenizer(
    context: int, texts: Iterable[str], split: str, chat_template: str, special: tuple[str, ...] = ()
) -> "PreTrainedTokenizerFast":
    """A byte-level Unigram tokenizer with a fixed vocabulary: all words of `texts`, each preferred to its bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), byte_level])
    words = {word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(text)}
    alphabet = sorted(byte_level.alphabet())
    special_tokens = [PAD, END, *ROLES, *special]
    vocabulary = [(token, 0.0) for token in special_tokens] + [(token, -20.0) for token in alphabet]
    vocabulary += [(word, -1.0) for word in sorted(words - set(alphabet))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.add_special_tokens(special_tokens)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[*ROLES, *special],
        chat_template=chat_template, model_max_length=context, padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def user_turn(prompt: str) -> str:
    """A user turn and the start of the assistant's, as the chat template renders them."""
    return f"<|user|>{prompt}<|assistant|>"
