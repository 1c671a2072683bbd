"""Keeps two trainings on one machine apart. veRL loads this module in each of its processes, because
`VERL_USE_EXTERNAL_MODULES` names it.

veRL 0.9.1 transfers new weights to vLLM through a socket in /tmp that is named after the id of the Ray job, which is 1
in every new Ray: of two trainings at the same time, one would get the other's weights.
"""

import os

from ray.runtime_context import RuntimeContext

from dsrl.stages.train.verl.resources import TRAINING_VARIABLE

_get_job_id = RuntimeContext.get_job_id


def unique_job_id(self: RuntimeContext) -> str:
    """The job's id followed by the training's token; veRL uses it in names only."""
    return f"{_get_job_id(self)}{os.environ.get(TRAINING_VARIABLE, '')}"


RuntimeContext.get_job_id = unique_job_id
