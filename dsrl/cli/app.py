"""The command line: a verb, then words, options or Hydra overrides."""

import os
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dsrl import __version__
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

PIPELINE_VERBS = {"run": [], "evaluate": ["pipeline=evaluate"], "difficulty": ["pipeline=difficulty"], "plan": []}
"""Verbs that run a pipeline or plan one -> the overrides they stand for."""

VERBS = {
    "ls": "dsrl.cli.store_commands:ls",
    "why": "dsrl.cli.store_commands:why",
    "trace": "dsrl.cli.store_commands:trace",
    "gc": "dsrl.cli.store_commands:gc",
    "task": "dsrl.cli.tasks:task",
    "experiment": "dsrl.cli.experiments:experiment",
    "audit": "dsrl.cli.audit:audit",
    "compare": "dsrl.cli.compare:compare",
    "export": "dsrl.cli.export:export",
    "corpus": "dsrl.cli.corpus:corpus",
    "doctor": "dsrl.cli.doctor:doctor",
    "submit": "dsrl.cli.submit:submit",
    "status": "dsrl.cli.status:status",
}
"""Other verbs -> module and function, imported when called."""


class RunPipeline(Protocol):
    """`dsrl.main.launch`."""

    def __call__(self, overrides: list[str], *, plan: bool = False) -> int: ...


def dispatch(arguments: list[str], run_pipeline: RunPipeline) -> int:
    """Run the command line's verb. Returns the exit code."""
    try:
        if arguments in (["--version"], ["version"]):
            print(f"dsrl {__version__}")
            return 0
        if arguments in (["--help"], ["-h"], ["help"]):  # Hydra's own help needs a second to start
            print(help_text())
            return 0
        verb, rest = split_verb(arguments)
        if verb == "plan":
            return _plan(rest, run_pipeline)
        if verb in PIPELINE_VERBS:
            return _run_pipeline(PIPELINE_VERBS[verb] + rest, run_pipeline)
        return find_verb(verb)(rest)
    except UserError as error:
        return print_error(error)
    except KeyboardInterrupt:
        from dsrl.core.signals import interrupted_code

        again = shlex.join(["dsrl", *arguments])
        print(f"\ninterrupted: every reply received so far is kept; to go on:\n  {again}", file=sys.stderr)
        return interrupted_code()


def print_error(error: UserError) -> int:
    """Print an error for the user. Returns the exit code."""
    print(f"\ndsrl: {error}", file=sys.stderr)
    return error.exit_code


def split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb and its arguments; `--config-dir FOLDER` may stand before the verb. Without a verb it is `run`."""
    at = 2 if arguments[:1] == ["--config-dir"] else 0
    if len(arguments) > at and not arguments[at].startswith(("-", "+", "~")) and "=" not in arguments[at]:
        return arguments[at], arguments[at + 1 :] + arguments[:at]
    return "run", arguments


def find_verb(name: str) -> Callable[[list[str]], int]:
    """The function of a verb that runs no pipeline."""
    if name not in VERBS:
        raise UserError("no such command", got=name, allowed=[*PIPELINE_VERBS, *VERBS], next_step="dsrl --help")
    module, _, function = VERBS[name].partition(":")
    verb: Callable[[list[str]], int] = getattr(import_module(module), function)
    return verb


def _plan(overrides: list[str], run_pipeline: RunPipeline) -> int:
    """Plan a run. Hydra's run folder is a temporary one."""
    from tempfile import TemporaryDirectory

    from dsrl.cli.compose import quote

    with TemporaryDirectory() as folder:
        place = quote(folder)
        overrides = [*overrides, f"hydra.run.dir={place}", f"hydra.sweep.dir={place}"]
        return _run_pipeline(overrides, run_pipeline, plan=True)


VALUE_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c")


def _order_for_hydra(arguments: list[str]) -> list[str]:
    """`-m`, the overrides, then flags with values: argparse takes no override after a flag once it had one before."""
    first, overrides, flags = list[str](), list[str](), list[str]()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("-m", "--multirun"):
            first.append(argument)
        elif argument.startswith("-"):
            flags += [argument, *(rest[:1] if argument in VALUE_FLAGS else [])]
            rest = rest[1:] if argument in VALUE_FLAGS else rest
        else:
            overrides.append(argument)
    return [*first, *overrides, *flags]


def _run_pipeline(overrides: list[str], run_pipeline: RunPipeline, *, plan: bool = False) -> int:
    from dsrl.cli.compose import refuse_secrets

    refuse_secrets(overrides)
    overrides = _order_for_hydra(overrides)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra passes errors on to us instead of printing them
    try:
        return run_pipeline(overrides, plan=plan)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UserError(f"{error.strerror or error}{where}", next_step="check hydra.run.dir and store") from error


def run_with_hydra(job: "Callable[[DictConfig], Any]", overrides: list[str]) -> int:
    """Let Hydra compose the config and call `job`, many times in a sweep. Returns the highest exit code."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from dsrl.cli.compose import config_error
    from dsrl.core import broken_pipe
    from dsrl.core.disk_space import refusal
    from dsrl.core.resources import home

    exit_codes = [0]
    composed: list[bool] = []

    def guarded(config: "DictConfig") -> Any:
        """Print a job's error and let the other jobs of the sweep go on."""
        composed.append(True)
        try:
            return job(config)
        except UserError as error:
            exit_codes.append(print_error(error))
        except BrokenPipeError as error:
            broken_pipe.exit_quietly(error)
        except OSError as error:
            exit_codes.append(print_error(refusal(error, "the run")))
        return None

    sys.argv = [sys.argv[0], *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(home() / "conf"), config_name="config")(guarded)()
    except UserError:  # of a launcher whose jobs run elsewhere
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if composed:
            raise
        return print_error(config_error(error))
    return max(exit_codes)


def help_text() -> str:
    """Verbs, config groups with their choices, and settings with their defaults, read from the conf folder."""
    from dsrl.core.resources import home

    conf = home() / "conf"
    groups = {
        folder.name: sorted(path.stem for path in folder.glob("[!_]*.yaml")) + _subfolders(folder)
        for folder in sorted(conf.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    rows = "\n".join(f"  {name:<11} {', '.join(choices)}" for name, choices in groups.items())
    text = (conf / "config.yaml").read_text(encoding="utf-8")
    settings = text.partition("# Settings\n")[2].partition("\n\n")[0]
    lines = "\n".join(f"  {line}" for line in settings.splitlines())
    return HELP.format(version=__version__, groups=rows, settings=lines)


def _subfolders(folder: Path) -> list[str]:
    """Subfolders of a config group with the number of choices in each: too many to list by name."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [f"{path.name}/ ({len(list(path.glob('[!_]*.yaml')))})" for path in inner]


HELP = """\
dsrl {version}: from one task definition to a trained and measured language model

  dsrl [run] task=NAME teacher=NAME [OVERRIDE ...]   run the pipeline; results in the store are reused
  dsrl evaluate task=NAME model=hf model.path=...    measure a model on the task's test set
  dsrl compare RUN | A B                             compare two models on the same test items
  dsrl difficulty task=NAME teacher=NAME             rate the task's test items from easy to hard
  dsrl plan [pilot=10] task=NAME teacher=NAME        requests, tokens, dollars, GPU-hours, before anything is spent
  dsrl -m ... m=100,300,500                          a sweep; the teacher is paid once
  dsrl submit ... slurm.partition=NAME               one run as a job of Slurm (sweeps: -m hydra/launcher=slurm)
  dsrl status [JOB | FOLDER]                         state of runs, jobs and sweeps; marks killed runs as failed
  dsrl ls | why STAGE | trace SAMPLE | gc            list the store; why a stage ran again; where a sample came from
  dsrl export RUN out=FOLDER [push=OWNER/NAME]       data set with a card, and trained model; format=verl: rows for veRL
  dsrl audit write | read FILE.csv                   check labels by hand: write a sheet, then read it
  dsrl corpus index | search | ls | rm               texts from which passages are retrieved (docs/corpora.md)
  dsrl task ls | new NAME | check NAME               list tasks; create one; check its data and grader
  dsrl task demos NAME count=10                      draw demos from a task's labelled data
  dsrl experiment ls [WORD]                          presets: rows of the paper, ablations, baselines
  dsrl doctor [teacher=NAME] [live=true]             check the installation; live=true sends the teacher a tiny request
  dsrl --cfg job ...                                 print the config and stop

  dsrl experiment=quickstart                         try it: no GPU, no key, no network

Groups (group=choice; add your own with --config-dir FOLDER):
{groups}

Settings (setting=value):
{settings}

Every other key of --cfg job can be set the same way: rewrite.direction=harder, select.fill=unsolved, train.seed=1.
"""
