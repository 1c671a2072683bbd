"""What a forecast takes for granted where neither the store nor an earlier run knows better. Wide on purpose."""

from dsrl.core.estimate import Range

REPLY_PER_DEMO = Range(0.8, 2.0, 5.0)
"""Length of a teacher's answer over that of the answers in the demos, which tend to be terse."""
REPLY_TOKENS = Range(80.0, 250.0, 600.0)
"""Of a teacher's answer to a task without demos."""
QUESTION_TOKENS = Range(40.0, 120.0, 400.0)
"""Of an input where there are no demos."""
PATTERN_TOKENS = Range(80.0, 180.0, 400.0)
KEYWORDS_TOKENS = Range(20.0, 60.0, 150.0)
USABLE = Range(0.85, 0.97, 1.0)
"""Drafts that can be read."""
SOLVED = Range(0.2, 0.5, 0.8)
"""Samples that the base model solves at its first try."""
LEARNABLE = Range(0.3, 0.6, 1.0)
"""Samples that it solves sometimes."""
SEQUENTIAL = Range(0.0, 0.65, 1.0)
"""Share of all replies that scoring in waves draws."""
ROLLOUT_TOKENS = Range(60.0, 300.0, 1200.0)
"""Of a base model's reply."""
AGREEMENT: tuple[tuple[float, ...], ...] = ((0.98,), (0.98, 0.98, 0.98, 0.8, 0.5), (0.6,))
"""Share of a teacher's answers that agree with each other, by question: where votes are short, usual and long."""
SECONDS_PER_TOKEN = Range(0.005, 0.015, 0.04)
"""Of a reply, by an endpoint that streams 25 to 200 tokens a second."""
SECONDS_PER_REQUEST = Range(0.3, 1.0, 3.0)
"""Until its first token."""
