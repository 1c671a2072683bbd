"""How much one request may cost: from its size, and from what replies of its stage have shown so far."""

from dataclasses import dataclass

from dsrl.llm.ledger.spending import Spending

ENOUGH_SEEN = 4
"""Completions after which their lengths, and not `max_tokens`, say how long the next may be."""
LENGTH_MARGIN, LENGTH_SLACK = 1.5, 32
CHARACTERS_PER_TOKEN = 2.0
"""Of a prompt before any reply has said its tokens: few, so that the estimate is high."""
PROMPT_MARGIN, PROMPT_SLACK = 1.2, 16


@dataclass(frozen=True, slots=True)
class Size:
    """One HTTP request, as far as its cost depends on it."""

    prompt_characters: int
    choices: int = 1
    """Completions asked for (`n`)."""
    max_tokens: int = 0
    """Longest reply, in tokens."""


@dataclass(slots=True)
class Habit:
    """What the replies of one key have shown."""

    completions: int = 0
    longest: int = 0
    """Tokens of the longest completion, as far as the sums that endpoints report tell it."""
    tokens_per_character: float = 0.0
    """The highest ratio of prompt tokens to prompt characters."""

    def prompt(self, size: Size) -> int:
        """Tokens that the prompt has at most."""
        if self.tokens_per_character == 0.0:
            return int(size.prompt_characters / CHARACTERS_PER_TOKEN) + PROMPT_SLACK
        return int(size.prompt_characters * self.tokens_per_character * PROMPT_MARGIN) + PROMPT_SLACK

    def reply(self, size: Size) -> int:
        """Tokens that all completions together have at most, as far as can be told."""
        if self.completions < ENOUGH_SEEN:
            return size.choices * size.max_tokens
        return size.choices * min(size.max_tokens, int(LENGTH_MARGIN * self.longest) + LENGTH_SLACK)

    def guess(self, size: Size) -> int:
        """The same by the little that was seen: nothing at all before the first reply."""
        longest = int(LENGTH_MARGIN * self.longest) + LENGTH_SLACK if self.completions else 0
        return size.choices * min(size.max_tokens, longest)

    def learn(self, size: Size, spent: Spending) -> None:
        """A reply that doesn't say its tokens may have been as long as allowed."""
        each = -(-spent.output_tokens // max(1, spent.completions)) if spent.output_tokens else size.max_tokens
        self.completions += spent.completions
        self.longest = max(self.longest, each if spent.completions else 0)
        ratio = spent.input_tokens / max(1, size.prompt_characters)
        self.tokens_per_character = max(self.tokens_per_character, ratio)
