"""From a composed Hydra config to checked components. Every mistake is reported before any work, and names its key."""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from dsrl import prompts
from dsrl.core.component import Component, Many, component
from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.data.model import Model
from dsrl.data.task import Task
from dsrl.graders import KINDS
from dsrl.llm.endpoint import Endpoint
from dsrl.pipeline.stage import Stage

SEED_LIMIT = 2**31
TOP_KEY = re.compile(r"^(\w+):", re.MULTILINE)
"""A key at the top of a YAML file. Parsing the whole file takes thirty times as long."""


@component(None)
class Settings(Component):
    """The settings at the top of `conf/config.yaml`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    n: int = Field(ge=1)
    m: int = Field(ge=1)
    rollouts: int = Field(ge=1)
    votes: int = Field(ge=1)
    rounds: int = Field(ge=1)
    seed: int = Field(ge=0, lt=SEED_LIMIT)
    budget_usd: float | None = Field(ge=0)
    budget_tokens: int | None = Field(ge=0)
    prices: str | None
    accept_missing: bool
    wandb: bool
    stop_after: str | None
    pilot: int = Field(ge=0)
    store: str = Field(min_length=1)
    export_dir: str | None
    plugins: Many[str] = ()


def resolve(config: DictConfig) -> dict[str, Any]:
    """The whole config as plain values. Raises `UserError` for keys that are missing, unknown or can't be resolved."""
    _refuse_unknown(config)
    _require(config, "task", "instruction", "task=adhoc task.instruction=...")
    if any("teacher" in (config.get(name) or {}) for name in config.pipeline):
        _require(config, "teacher", "model", "teacher=offline, which needs no key")
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: {reason}", next_step=f"give {key}=...") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The checked settings of a resolved config."""
    settings: Settings = make(Settings, {name: values[name] for name in Settings.__dataclass_fields__}, "")
    return settings


def build(node: Any, key: str, plugins: tuple[str, ...] = ()) -> Any:
    """Build the component of every `_target_` below `node`, innermost first. `key` is its place in the config."""
    if isinstance(node, list):
        return tuple(build(item, f"{key}.{number}", plugins) for number, item in enumerate(node))
    if not isinstance(node, dict):
        return node
    node = _replace_kind(node, key)
    values = {name: build(value, f"{key}.{name}", plugins) for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return values
    return make(_import_target(node["_target_"], key, plugins), values, key)


def make(target: Any, values: Mapping[str, Any], key: str) -> Any:
    """Call a class with values that it checks. Raises `UserError` naming the config key of a value that it refuses."""
    prefix = f"{key}." if key else ""
    try:
        return target(**values)
    except ValidationError as error:
        raise _name_key(error, target, prefix) from error
    except TypeError as error:
        raise UserError(f"{key}: {target.__name__} can't be made", got=str(error)) from error


def components_in(value: Any) -> Iterator[Component]:
    """A component and all components inside it."""
    if isinstance(value, Component):
        yield value
        for name in getattr(value, "__dataclass_fields__", {}):
            yield from components_in(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from components_in(item)


def check_run(values: Mapping[str, Any], settings: Settings) -> None:
    """Check what only a real run has to fulfil. Raises `UserError`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN:
        for override in hydra.overrides.hydra:
            if override.startswith("hydra/launcher="):
                raise UserError(
                    f"{override} launches the jobs of a sweep, and this is one run",
                    next_step="dsrl -m ... for a sweep; dsrl submit ... for one run as a job of Slurm",
                )
    check_overrides(values, hydra.overrides.task)
    if settings.pilot:
        raise UserError(
            "pilot belongs to `dsrl plan`", got=f"pilot={settings.pilot}", next_step="dsrl plan pilot=10 ..."
        )


def check_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """Every override must take effect. Raises `UserError` for one that would be ignored."""
    overrides = list(overrides)
    train = values.get("train")
    if isinstance(train, Mapping):
        engine = f"train={str(train.get('_target_')).rpartition('.')[2].lower()}"
        if (algorithm := _choices_in("rl", overrides)) and "algorithm" not in train:
            raise UserError(
                f"{engine} runs no RL algorithm",
                got=" ".join(algorithm),
                allowed="train=verl with any rl; train=trl with rl=grpo or rl=dr_grpo; other engines without rl",
                next_step=f"take out {algorithm[0]}, or give train=trl",
            )
        if (cluster := _choices_in("cluster", overrides)) and "cluster" not in train:
            raise UserError(
                f"{engine} does not use Ray",
                got=" ".join(cluster),
                allowed="cluster=... with train=verl",
                next_step=f"take out {cluster[0]}; a single node of Slurm needs no cluster: dsrl submit ...",
            )
    absent = known_stages() - set(values["pipeline"]) - {"score"}  # other stages take their sampling from `score`
    for override in overrides:
        name, inner, _ = override.partition("=")[0].lstrip("+~").partition(".")
        if inner and name in absent:
            raise UserError(
                f"{name}: this pipeline has no such stage",
                got=override,
                allowed=list(values["pipeline"]),
                next_step=f"take out {override}, or give the pipeline that has the stage: pipeline=...",
            )


def _choices_in(group: str, overrides: list[str]) -> list[str]:
    """The overrides that choose from a config group or set something in it."""
    return [word for word in overrides if word.partition("=")[0].lstrip("+~").partition(".")[0] == group]


def check_stages(pipeline: Mapping[str, Any], stop_after: str | None, *, dry: bool = False) -> None:
    """Run the checks of every component of every stage; with `dry`, only check that they are stages."""
    for name, stage in pipeline.items():
        if not isinstance(stage, Stage):
            raise UserError(f"pipeline: `{name}` is not a stage", got=stage, next_step=f"give {name}._target_=...")
        for part in components_in(stage) if not dry else ():
            part.check()
    if stop_after is not None and stop_after not in pipeline:
        raise UserError("stop_after: no such stage", got=stop_after, allowed=list(pipeline))


def endpoints_in(value: Any) -> Iterator[Endpoint]:
    """The endpoints among the components of a stage."""
    return (part for part in components_in(value) if isinstance(part, Endpoint))


def check_budget(budget_usd: float | None, pipeline: Mapping[str, Stage]) -> None:
    """A budget in dollars needs the price of every endpoint."""
    unpriced = [one for stage in pipeline.values() for one in endpoints_in(stage) if one.price is None]
    if budget_usd is not None and unpriced:
        raise UserError(
            f"budget_usd is set, but the price of {unpriced[0].model} is unknown",
            got="price: null",
            next_step="give the endpoint a price: {_target_: dsrl.llm.Price, input: ..., output: ..., date: ...}; "
            "or set budget_tokens instead, which needs no price",
        )


def check_context(task: Task, pipeline: Mapping[str, Stage]) -> None:
    """What stands in every prompt of a task must fit into the context of each endpoint."""
    longest = max((f"{demo.input}{demo.output}" for demo in task.demos), key=len, default="")
    parts = {"task.instruction": task.instruction, "the longest of task.demos": longest}
    for stage in pipeline.values():
        template = max((prompts.literal_text(name) for name in stage.templates), key=len, default="")
        for endpoint in endpoints_in(stage):
            own = {f"the prompt template of {stage.name}": template} if endpoint is stage.prompted_endpoint else {}
            endpoint.check_prompt(parts={**parts, **own})


def check_model(model: Model | None, pipeline: Mapping[str, Stage]) -> None:
    """There is a base model; its folder exists unless it is made on first use; its weights are here if needed."""
    if model is None:
        raise UserError("model is missing", allowed=options("model"), next_step="model=NAME")
    if model.prepare is None:
        model.locate()
    needing = [part for stage in pipeline.values() for part in components_in(stage) if part.needs_weights]
    if model.path is None and model.prepare is None and needing:
        raise UserError(
            f"model {model.name} has no weights on this machine, but {type(needing[0]).__name__} needs them",
            next_step="give model=hf model.path=..., or rollout=server train=none for a model that a server offers",
        )


def check_images(task: Task, model: Model | None, pipeline: Mapping[str, Stage]) -> None:
    """Models and endpoints that are sent a task's images accept them."""
    in_samples = any(stage.adds_images(task) for stage in pipeline.values())
    in_test = bool(task.test and task.test.images) and any("test" in stage.inputs for stage in pipeline.values())
    rolled_out = any("base" in stage.inputs for stage in pipeline.values())
    if (in_samples or in_test) and rolled_out and model is not None and model.reads_images() is False:
        raise UserError(
            f"model {model.name} does not accept images, but task {task.name} contains images",
            got=f"model.images={str(model.images).lower()}",
            next_step="give a vision-language model: model=qwen2_5_vl_7b_instruct, or model=hf model.path=...",
        )
    for name, stage in pipeline.items():
        blind = [endpoint for endpoint in endpoints_in(stage) if not endpoint.images]
        if blind and stage.shows_images(task, in_samples=in_samples):
            raise UserError(
                f"{name}: {blind[0].model} does not accept images, but task {task.name} contains images",
                got="images: false",
                next_step="take one that does, such as teacher=gpt4o; or teacher.images=true if this one does",
            )
        if in_samples and not stage.accepts_images:
            raise UserError(
                f"{name}: {type(stage).__name__} can't train on images",
                got=f"task {task.name}, which contains images",
                allowed="train=trl, train=verl, train=none",
            )


def _name_key(error: ValidationError, target: Any, prefix: str) -> UserError:
    first = error.errors()[0]
    name = ".".join(str(step) for step in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = sorted(getattr(target, "__dataclass_fields__", {}))
        return UserError(f"{prefix}{name}: unknown key", allowed=allowed, next_step=_suggest(name, allowed))
    if first["type"] == "missing":
        return UserError(f"{prefix}{name} is missing", next_step=f"give {prefix}{name}=...")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    return UserError(f"{prefix}{name}: {first['msg']}", got=repr(first["input"]), next_step=f"give {prefix}{name}=...")


def _replace_kind(node: dict[str, Any], key: str) -> dict[str, Any]:
    """Replace `kind: number`, short for a grader, by its `_target_`."""
    if "kind" not in node or isinstance(node["kind"], dict) or "answer" not in key.split("."):
        return node
    rest = {name: value for name, value in node.items() if name != "kind"}
    if "_target_" in node:
        return rest
    if node["kind"] not in KINDS:
        raise UserError(
            f"{key}.kind: no such answer kind",
            got=node["kind"],
            allowed=sorted(KINDS),
            next_step="or give answer._target_=my_module.MyGrader and plugins=[my_module]",
        )
    return {"_target_": KINDS[node["kind"]], **rest}


def _import_target(path: Any, key: str, plugins: tuple[str, ...]) -> type[Component]:
    """The component class that a `_target_` names: of dsrl or of the user's plugins, never a function."""
    roots = ("dsrl", *plugins)
    if not isinstance(path, str) or not any(path.startswith(f"{root}.") for root in roots):
        raise UserError(
            f"{key}._target_: only components of dsrl and of the modules in `plugins` may be built",
            got=path,
            allowed=[f"{root}.*" for root in roots],
            next_step="plugins=[your_module]",
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_: {path} can't be imported", got=str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise UserError(
            f"{key}._target_: {path} is not a component",
            allowed="classes with the base class dsrl.core.component.Component",
            next_step="decorate your class with @component('my_module.my_class')",
        )
    return found


def _require(config: DictConfig, group: str, field: str, example: str) -> None:
    node = config.get(group)
    if node is None or field not in node or OmegaConf.is_missing(node, "name" if group == "task" else field):
        raise UserError(f"{group} is missing", allowed=options(group), next_step=f"{group}=NAME, for example {example}")


def options(group: str) -> list[str]:
    """The choices of a config group, including those in `--config-dir` folders."""
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    if hydra is not None:
        return [name for name in hydra.config_loader.get_group_options(group) if not name.startswith("_")]
    return sorted(path.stem for path in (home() / "conf" / group).glob("[!_]*.yaml"))


def _refuse_unknown(config: DictConfig) -> None:
    """Hydra refuses an unknown top-level key in an override but silently merges one from a YAML file."""
    known = known_keys() | set(map(str, config.pipeline))
    for key in map(str, config):
        if key not in known:
            raise UserError(
                f"{key}: unknown key at the top of the config{_file_with(key)}",
                allowed=sorted(known),
                next_step=_suggest(key, sorted(known)),
            )


@cache
def known_keys() -> frozenset[str]:
    """Top-level keys of the shipped config and of its pipelines."""
    conf = home() / "conf"
    files = [conf / "config.yaml", *(conf / "pipeline").glob("*.yaml")]
    keys = (key for path in files for key in TOP_KEY.findall(path.read_text(encoding="utf-8")))
    return frozenset(keys) - {"defaults"}


@cache
def known_stages() -> frozenset[str]:
    """Names of all stages of the shipped pipelines."""
    files = (home() / "conf" / "pipeline").glob("[!_]*.yaml")
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    return frozenset(name for content in contents for name in content["pipeline"])


def _file_with(key: str) -> str:
    """The YAML file that holds a stray top-level key, if it can be found."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ""
    folders = [source.path for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    for folder in folders:
        for path in Path(folder).rglob("*.yaml"):
            if re.search(rf"^{re.escape(key)}\s*:", path.read_text(encoding="utf-8"), re.MULTILINE):
                return f" (in {path})"
    return ""


def _suggest(name: str, allowed: list[str]) -> str:
    close = get_close_matches(name.rpartition(".")[2], allowed, 1)
    return f"did you mean `{close[0]}`?" if close else "take it out"
