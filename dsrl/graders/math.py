r"""A mathematical expression in `\boxed{...}`."""

from collections.abc import Sequence

from pydantic import Field

from dsrl.core.component import component
from dsrl.graders.base import RIGHT, UNDECIDED, WRONG, Grader, first_alternative
from dsrl.graders.latex import MAX_ANSWER, boxes, canonical, settle
from dsrl.graders.tagged import last_stated
from dsrl.graders.worker_pool import pool

WORKER = "dsrl.graders.math_worker"
MAX_REMEMBERED = 100_000


@component("graders.math")
class Math(Grader):
    r"""LaTeX in the last `\boxed{...}`, compared by math-verify in a process that can be killed.

    Equal spellings, plain numbers, units and words are settled without it. Decimals agree to six digits.
    """

    version = 2
    accepts_alternatives = True
    timeout: float = Field(default=5.0, gt=0)
    """CPU seconds for one comparison; one that needs more is `undecided`, and not right."""

    @property
    def instruction(self) -> str:
        return "Work step by step, then give the final answer as \\boxed{...}."

    def marked(self, reply: str) -> Sequence[str]:
        return boxes(reply)

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else self.read(last_stated(reply))

    def read(self, text: str) -> str | None:
        answer = "" if text.strip() == "..." else canonical(text)
        return answer if 0 < len(answer) <= MAX_ANSWER else None

    def gold(self, text: str) -> str | None:
        """The last box, or the bare answer; a text without a box that fills several lines is no answer."""
        answer = self.parse(text)
        return answer if answer is not None or "\n" in text.strip() else self.read(text)

    def write(self, answer: str) -> str:
        return f"\\boxed{{{first_alternative(answer)}}}"

    def same(self, first: str, second: str) -> bool:
        return self.compare(first, second) == RIGHT

    def compare(self, parsed: str, answer: str) -> str:
        return self.compare_many([(parsed, answer)])[0]

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        settled = {pair: settle(*pair) for pair in pairs}
        asked = {pair: outcome for pair, outcome in settled.items() if isinstance(outcome, tuple)}
        verdicts = _ask_workers(list(dict.fromkeys(asked.values())), self.timeout)
        reasons = {
            pair: verdicts[outcome] if isinstance(outcome, tuple) else RIGHT if outcome else WRONG
            for pair, outcome in settled.items()
        }
        return [reasons[pair] for pair in pairs]


_verdicts: dict[tuple[str, str, float], str] = {}
"""(reply, gold, time limit) -> verdict: 64 equal rollouts are compared once in the life of this process."""


def _ask_workers(pairs: Sequence[tuple[str, str]], seconds: float) -> dict[tuple[str, str], str]:
    """The verdicts of math-verify."""
    new = [pair for pair in pairs if (*pair, seconds) not in _verdicts]
    if len(_verdicts) + len(new) > MAX_REMEMBERED:
        _verdicts.clear()
        new = list(pairs)
    results = pool(WORKER).ask([[gold, reply] for reply, gold in new], seconds) if new else []
    for pair, same in zip(new, results, strict=True):
        _verdicts[(*pair, seconds)] = UNDECIDED if same is None else RIGHT if same else WRONG
    return {pair: _verdicts[(*pair, seconds)] for pair in pairs}
