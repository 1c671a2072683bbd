"""How many tokens a request usually takes: for ceilings per minute, where the mean counts and not the worst case."""

from dsrl.data.model import Usage
from dsrl.llm.ledger.ledger import Size

CHARACTERS_PER_TOKEN = 4.0
"""Of a prompt, before any reply has said its tokens."""


class Usual:
    """Running means over the replies of one client."""

    def __init__(self) -> None:
        self._characters = self._input = self._output = self._completions = 0

    def tokens(self, size: Size) -> float:
        """Prompt and reply. Before the first reply, as many as the reply may have at most."""
        each = self._output / self._completions if self._completions else size.max_tokens
        ratio = self._input / self._characters if self._characters else 1 / CHARACTERS_PER_TOKEN
        return size.prompt_characters * ratio + size.choices * each

    def learn(self, size: Size, usage: Usage) -> None:
        self._characters += size.prompt_characters
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._completions += size.choices
