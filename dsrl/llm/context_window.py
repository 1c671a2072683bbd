"""Whether a prompt can fit into a model at all, seen before anything is sent or paid."""

from collections.abc import Iterable, Mapping
from typing import Any

from dsrl.core.errors import UserError

CHARACTERS_PER_TOKEN = 8
"""More than a token of any usual text has, so that what is refused here would have been refused by everybody."""
SHOWN = 40


def check_fit(model: str, context: int | None, max_tokens: int, parts: Mapping[str, str]) -> None:
    """Raises `UserError` if the parts of a prompt and the longest reply are more than the model's context, naming the
    largest part, or `max_tokens` where that is more than all of them. Tokens are bounded from below, so a prompt that
    passes may still be refused by the endpoint."""
    tokens = {name: len(text) // CHARACTERS_PER_TOKEN for name, text in parts.items()}
    total = sum(tokens.values())
    if context is None or total + max_tokens <= context:
        return
    if max_tokens > total:
        raise UserError(
            f"max_tokens={max_tokens} leaves {max(0, context - max_tokens)} of {context} tokens for the prompt",
            got=f"at least {total} tokens of prompt for {model}",
            next_step=f"lower max_tokens, or give context=... if {model} takes more than {context} tokens",
        )
    largest = max(tokens, key=lambda name: tokens[name], default="")
    raise UserError(
        f"{largest} is too long for {model}",
        got=f"at least {total} tokens of prompt, {tokens.get(largest, 0)} of them there, and max_tokens={max_tokens}",
        allowed=f"{context} tokens in all (context)",
        next_step=f"shorten it, take a model with a longer context, or give context=... if {model} takes more",
    )


def paragraphs(messages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The parts of a prompt under names that a person finds again: each block between headings or blank lines by how
    it begins."""
    texts = [str(message["content"]) for message in messages if isinstance(message.get("content"), str)]
    blocks = [block.strip() for text in texts for block in text.split("\n\n") if block.strip()]
    named: dict[str, str] = {}
    for block in blocks:
        start = " ".join(block[:SHOWN].split())
        named[f"the part of the prompt that begins with `{start}`"] = block
    return named
