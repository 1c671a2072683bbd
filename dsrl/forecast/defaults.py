"""Assumptions of a forecast, for what neither the store nor an earlier run shows. Wide on purpose."""

from dsrl.forecast.estimate import Range

REPLY_PER_DEMO = Range(0.8, 2.0, 5.0)
"""Length of a teacher's answer over that of the demos' answers, which tend to be terse."""
REPLY_TOKENS = Range(80.0, 250.0, 600.0)
"""Length of a teacher's answer to a task without demos."""
QUESTION_TOKENS = Range(40.0, 120.0, 400.0)
"""Length of an input if there are no demos."""
PATTERN_TOKENS = Range(80.0, 180.0, 400.0)
KEYWORDS_TOKENS = Range(20.0, 60.0, 150.0)
USABLE = Range(0.85, 0.97, 1.0)
"""Share of drafts that can be read."""
SOLVED = Range(0.2, 0.5, 0.8)
"""Share of samples that the base model solves at its first attempt."""
LEARNABLE = Range(0.3, 0.6, 1.0)
"""Share of samples that it solves sometimes."""
SEQUENTIAL = Range(0.0, 0.65, 1.0)
"""Share of all replies that early stopping draws."""
ROLLOUT_TOKENS = Range(60.0, 300.0, 1200.0)
"""Length of a base model's reply."""
AGREEMENT: tuple[tuple[float, ...], ...] = ((0.98,), (0.98, 0.98, 0.98, 0.8, 0.5), (0.6,))
"""Share of a teacher's answers to one question that are the same, for some typical questions each: an easy task (few
votes are needed), a usual one, a hard one."""
SECONDS_PER_TOKEN = Range(0.005, 0.015, 0.04)
"""25 to 200 streamed tokens per second."""
SECONDS_PER_REQUEST = Range(0.3, 1.0, 3.0)
"""Time to the first token."""
