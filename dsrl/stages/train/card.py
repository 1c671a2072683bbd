"""The card of a trained model: what it was made of and how, in the form that model hubs read."""

from dsrl import __version__
from dsrl.stages.train.checkpoints import Checkpoint
from dsrl.stages.train.job import Job

HIDDEN = frozenset(("engine", "format_share"))
"""Settings that are said in words, or say where and not what."""


def card(job: Job, best: Checkpoint) -> str:
    """Markdown with a head of YAML."""
    chosen = "" if best.validation is None else f", right on {best.validation:.1%} of held-out synthetic samples"
    raw = "plain text" if job.model.prompt_format == "raw" else "one user turn of its chat template"
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in job.settings.items() if name not in HIDDEN)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [dsrl, synthetic-data, {job.algorithm}]
---

# {job.model.name} after {job.algorithm}

Trained by dsrl {__version__} on synthetic samples, {job.rows_per_step} in each of {job.steps} updates. This is the
checkpoint after update {best.step}{chosen}. The test set took no part in training or in the choice.

- Base model: `{job.model.name}`
- Asked with: {raw}
- Grader: `{job.grader["class"]}`, seed {job.seed}

| setting | value |
|---|---|
{rows}
"""  # noqa: S608 - no SQL
