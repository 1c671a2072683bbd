"""The command line: a verb, then Hydra overrides. Answers `--help` itself, because Hydra's own takes its time."""

import os
from collections.abc import Callable
from importlib import import_module

from dsrl import __version__
from dsrl.core.errors import UserError

PIPELINE_VERBS = {"run": [], "evaluate": ["pipeline=evaluate"], "difficulty": ["pipeline=difficulty"], "plan": []}
"""Verbs that run a pipeline, or look ahead at one -> the overrides they stand for."""


def dispatch(arguments: list[str]) -> int:
    """Do what the command line says; returns the exit code."""
    from dsrl.main import explain, interrupted

    try:
        if arguments in (["--version"], ["version"]):
            print(f"dsrl {__version__}")
            return 0
        if arguments in (["--help"], ["-h"], ["help"]):
            print(help_text())
            return 0
        verb, rest = _verb(arguments)
        if verb in PIPELINE_VERBS:
            return plan(rest) if verb == "plan" else compose(PIPELINE_VERBS[verb] + rest)
        return store_verb(verb)(rest)
    except UserError as error:
        return explain(error)
    except KeyboardInterrupt:
        return interrupted(arguments)


def _verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb and what it is given; `--config-dir FOLDER` may stand before it."""
    at = 2 if arguments[:1] == ["--config-dir"] else 0
    if len(arguments) > at and _is_word(arguments[at]):
        return arguments[at], arguments[at + 1 :] + arguments[:at]
    return "run", arguments


def plan(overrides: list[str]) -> int:
    """Look ahead; Hydra's folder for a run is none of the user's."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return compose([*overrides, f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"], plan=True)


def compose(overrides: list[str], *, plan: bool = False) -> int:
    """Run a pipeline under Hydra."""
    from dsrl.cli.overrides import refuse_secrets
    from dsrl.main import launch

    refuse_secrets(overrides)
    overrides = _order_for_hydra(overrides)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us instead of being printed by Hydra
    try:
        return launch(overrides, plan=plan)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UserError(f"{error.strerror or error}{where}", next_step="check hydra.run.dir and store") from error


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


def _is_word(argument: str) -> bool:
    return not argument.startswith("-") and "=" not in argument and not argument.startswith(("+", "~"))


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
    "submit": "dsrl.cli.jobs.submit:submit",
    "status": "dsrl.cli.jobs.status:status",
}
"""Verbs without a pipeline -> module and function, imported when asked for."""


def store_verb(name: str) -> Callable[[list[str]], int]:
    """The function of a verb that runs no pipeline."""
    if name not in VERBS:
        raise UserError("no such command", got=name, allowed=[*PIPELINE_VERBS, *VERBS], next_step="dsrl --help")
    module, _, function = VERBS[name].partition(":")
    verb: Callable[[list[str]], int] = getattr(import_module(module), function)
    return verb


def help_text() -> str:
    """Return the help: groups with their choices and settings with their defaults, read from the conf folder."""
    from dsrl.core.resources import home

    conf = home() / "conf"
    groups = {
        folder.name: sorted(path.stem for path in folder.glob("[!_]*.yaml")) + _folders(folder)
        for folder in sorted(conf.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    rows = "\n".join(f"  {name:<11} {', '.join(choices)}" for name, choices in groups.items())
    text = (conf / "config.yaml").read_text(encoding="utf-8")
    settings = text.partition("# Settings\n")[2].partition("\n\n")[0]
    lines = "\n".join(f"  {line}" for line in settings.splitlines())
    return HELP.format(version=__version__, groups=rows, settings=lines)


def _folders(folder: "os.PathLike[str]") -> list[str]:
    """Choices in folders of a group's own, which would be too many to name."""
    from pathlib import Path

    inner = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    return [f"{path.name}/ ({len(list(path.glob('[!_]*.yaml')))})" for path in inner]


HELP = """\
dsrl {version}: from one task definition to a trained and measured language model

  dsrl [run] task=NAME teacher=NAME [OVERRIDE ...]   run the pipeline; results in the store are reused
  dsrl evaluate task=NAME model=hf model.path=...    evaluate a model on the task's test set
  dsrl compare RUN | A B                             two models on the same test items: difference, interval, flips
  dsrl difficulty task=NAME teacher=NAME             rate the difficulty of the task's test items
  dsrl plan [pilot=10] task=NAME teacher=NAME        forecast requests, tokens, dollars and GPU-hours
  dsrl -m ... m=100,300,500                          a sweep; the teacher is paid once
  dsrl submit ... slurm.partition=NAME               submit a run as a Slurm job (sweeps: -m hydra/launcher=slurm)
  dsrl status [JOB | FOLDER]                         state of runs, jobs and sweeps; marks killed runs as failed
  dsrl ls | why STAGE | trace SAMPLE | gc            store: content, why a stage ran again, a sample's origin, clean-up
  dsrl export RUN out=FOLDER [push=OWNER/NAME]       data set with a card, and trained model; format=verl: rows for veRL
  dsrl audit write | read FILE.csv                   check labels by hand: write a sheet, read the result
  dsrl corpus index | search | ls | rm               corpora from which passages are retrieved (docs/corpora.md)
  dsrl task ls | new NAME | check NAME               list tasks; start a new one; test its data and grader
  dsrl task demos NAME count=10                      sample demos from its labelled data
  dsrl experiment ls [WORD]                          named settings: the paper's rows, ablations, baselines
  dsrl doctor [teacher=NAME] [live=true]             what is installed and what is missing; one request to a teacher
  dsrl --cfg job ...                                 print the config and stop

  dsrl experiment=quickstart                         try it: no GPU, no key, no network

Groups (group=choice; add your own with --config-dir FOLDER):
{groups}

Settings (setting=value):
{settings}

Every other key of --cfg job can be set the same way: rewrite.direction=harder, select.fill=unsolved, train.seed=1.
"""
