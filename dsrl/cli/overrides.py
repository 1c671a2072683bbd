"""What is typed on the command line, looked at before Hydra writes it anywhere. Light: `--cfg job` imports it."""

import re
from collections.abc import Iterable

from dsrl.core.errors import UserError

LAUNCHER = "hydra/launcher="

SECRET = re.compile(r"(^|[._/+~])(api_?key|access_?key|secret|token|password|hf_token)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"(^|[\s'\"=:,{\[])(sk-|hf_|ghp_|AKIA|AIza)[\w-]{8,}")
INNER_KEY = re.compile(r"""[{,]\s*['"]?([\w.]+)['"]?\s*:""")


def refuse_secrets(overrides: Iterable[str]) -> None:
    """Keys belong into the environment: what is typed on a command line ends up in files and process lists."""
    for override in overrides:
        key, sign, value = override.partition("=")
        keys = [key, *INNER_KEY.findall(value)]
        if sign and (any(map(SECRET.search, keys)) or SECRET_VALUE.search(value)):
            raise UserError(
                f"{key.lstrip('+~')}: a secret doesn't belong on the command line (its value is not repeated here)",
                allowed="the name of an environment variable",
                next_step="export OPENAI_API_KEY=... and give teacher.api_key_env=OPENAI_API_KEY",
            )


def refuse_idle_launcher(overrides: Iterable[str]) -> None:
    """Of a single run, for which Hydra ignores the launcher without a word."""
    for override in overrides:
        if override.startswith(LAUNCHER):
            raise UserError(
                f"{override} launches the jobs of a sweep, and this is one run",
                next_step="dsrl -m ... for a sweep; dsrl submit ... for one run as a job of Slurm",
            )
