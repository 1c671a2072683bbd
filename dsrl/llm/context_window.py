"""Prompts that do not fit into a model's context or that the endpoint refuses, found before anything more is sent."""

from collections.abc import Iterable, Mapping
from typing import Any

from dsrl.core.errors import UserError

CHARACTERS_PER_TOKEN = 8
"""An upper bound for text in any language: a prompt that fails this check would be refused by every tokenizer."""
SHOWN = 40


def check_fit(model: str, context: int | None, max_tokens: int, parts: Mapping[str, str]) -> None:
    """Raise `UserError` if prompt parts plus the longest reply exceed the context.

    The message names the largest part, or `max_tokens` where that exceeds all parts together. Tokens are a lower
    bound, so a prompt that passes may still be refused by the endpoint.
    """
    tokens = {name: len(text) // CHARACTERS_PER_TOKEN for name, text in parts.items()}
    total = sum(tokens.values())
    if context is None or total + max_tokens <= context:
        return
    if max_tokens > total:
        raise UserError(
            f"max_tokens={max_tokens} leaves {max(0, context - max_tokens)} of {context} tokens for the prompt",
            got=f"at least {total} tokens of prompt for {model}",
            next_step=f"lower max_tokens, or set context=... if {model} takes more than {context} tokens",
        )
    largest = max(tokens, key=lambda name: tokens[name], default="")
    raise UserError(
        f"{largest} is too long for {model}",
        got=f"at least {total} tokens of prompt, {tokens.get(largest, 0)} of them there, and max_tokens={max_tokens}",
        allowed=f"{context} tokens in all (context)",
        next_step=f"shorten it, choose a model with a longer context, or set context=... if {model} takes more",
    )


def paragraphs(messages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Split a prompt at blank lines; each part is named by its first characters."""
    texts = [str(message["content"]) for message in messages if isinstance(message.get("content"), str)]
    blocks = [block.strip() for text in texts for block in text.split("\n\n") if block.strip()]
    return {f"the part of the prompt that begins with `{' '.join(block[:SHOWN].split())}`": block for block in blocks}
