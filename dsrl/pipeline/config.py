"""From a composed Hydra config to checked objects: every mistake dies here, before any work, and names its key."""

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
from dsrl.graders import KINDS
from dsrl.pipeline.stage import Stage

SEED_LIMIT = 2**31
TOP_KEY = re.compile(r"^(\w+):", re.MULTILINE)
"""A key at the top of a YAML file: reading all of it takes thirty times as long."""


@component(None)
class Settings(Component):
    """The dials at the top of `conf/config.yaml`."""

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


def resolved(config: DictConfig) -> dict[str, Any]:
    """The whole config as plain values. Raises `UserError` for what is missing, mistyped or can't be resolved."""
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


def dials(values: Mapping[str, Any]) -> Settings:
    """The checked dials."""
    found = {name: values[name] for name in Settings.__dataclass_fields__}
    checked: Settings = make(Settings, found, "")
    return checked


def build(node: Any, key: str, plugins: tuple[str, ...] = ()) -> Any:
    """Every `_target_` below `node` made into its object, innermost first. `key` is where the node stands."""
    if isinstance(node, list):
        return tuple(build(item, f"{key}.{number}", plugins) for number, item in enumerate(node))
    if not isinstance(node, dict):
        return node
    node = _with_kind(node, key)
    values = {name: build(value, f"{key}.{name}", plugins) for name, value in node.items() if name != "_target_"}
    if "_target_" not in node:
        return values
    return make(_target(node["_target_"], key, plugins), values, key)


def make(target: Any, values: Mapping[str, Any], key: str) -> Any:
    """Call a class with checked values; a refused value is named by its key in the config."""
    prefix = f"{key}." if key else ""
    try:
        return target(**values)
    except ValidationError as error:
        raise _refused(error, target, prefix) from error
    except TypeError as error:
        raise UserError(f"{key}: {target.__name__} can't be made", got=str(error)) from error


def check_stages(pipeline: Mapping[str, Any], stop_after: str | None, *, dry: bool = False) -> None:
    """Every stage is one, and every part of it passes its own check; `dry`: it need not be fit for work yet."""
    for name, stage in pipeline.items():
        if not isinstance(stage, Stage):
            raise UserError(f"pipeline: `{name}` is no stage", got=stage, next_step=f"give {name}._target_=...")
        for piece in pieces(stage) if not dry else ():
            if hasattr(piece, "check"):
                piece.check()
    if stop_after is not None and stop_after not in pipeline:
        raise UserError("stop_after: no such stage", got=stop_after, allowed=list(pipeline))


def check_asked(values: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """What was set by hand has to be used."""
    overrides = list(overrides)
    check_pair(values.get("train"), overrides)
    check_used(values["pipeline"], overrides)


def check_pair(train: Any, overrides: Iterable[str]) -> None:
    """An `rl=` or a `cluster=` that was asked for must be used by the engine: an option that is ignored without a word
    is a fault."""
    overrides = list(overrides)
    asked = _of_group("rl", overrides)
    if asked and isinstance(train, Mapping) and "algorithm" not in train:
        raise UserError(
            f"train={str(train.get('_target_')).rpartition('.')[2].lower()} runs no RL algorithm",
            got=" ".join(asked),
            allowed="train=verl with any rl; train=trl with rl=grpo or rl=dr_grpo; train=sft and train=none without rl",
            next_step=f"take out {asked[0]}, or give train=trl",
        )
    clusters = _of_group("cluster", overrides)
    if clusters and isinstance(train, Mapping) and "cluster" not in train:
        raise UserError(
            f"train={str(train.get('_target_')).rpartition('.')[2].lower()} runs on no Ray",
            got=" ".join(clusters),
            allowed="cluster=... with train=verl",
            next_step=f"take out {clusters[0]}; a single node of Slurm needs no cluster: dsrl submit ...",
        )


def _of_group(group: str, overrides: list[str]) -> list[str]:
    """Those that choose from the group or set something in it."""
    return [word for word in overrides if word.partition("=")[0].lstrip("+~").partition(".")[0] == group]


def check_used(pipeline: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """What is set by hand for a stage must belong to one that runs. `score` lends its sampling to others."""
    absent = known_stages() - set(pipeline) - {"score"}
    for override in overrides:
        name, inner, _ = override.partition("=")[0].lstrip("+~").partition(".")
        if inner and name in absent:
            raise UserError(
                f"{name}: this pipeline has no such stage",
                got=override,
                allowed=list(pipeline),
                next_step=f"take out {override}, or give the pipeline that has the stage: pipeline=...",
            )


def pieces(value: Any) -> Iterator[Component]:
    """A part and all parts inside it."""
    if isinstance(value, Component):
        yield value
        for name in getattr(value, "__dataclass_fields__", {}):
            yield from pieces(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from pieces(item)


def check_budget(budget_usd: float | None, pipeline: Mapping[str, Any]) -> None:
    """A budget can only be kept where prices are known."""
    parts = (piece for stage in pipeline.values() for piece in pieces(stage))
    unpriced = [piece for piece in parts if getattr(piece, "price", piece) is None]
    if budget_usd is not None and unpriced:
        raise UserError(
            f"budget_usd is set, but the price of {getattr(unpriced[0], 'model', '?')} is unknown",
            got="price: null",
            next_step="give the endpoint a price: {_target_: dsrl.llm.Price, input: ..., output: ..., date: ...}; "
            "or set budget_tokens instead, which needs no price",
        )


def check_context(task: Any, pipeline: Mapping[str, Any]) -> None:
    """What stands in every prompt of a task fits into the context of whoever is asked."""
    longest = max((f"{demo.input}{demo.output}" for demo in task.demos), key=len, default="")
    parts = {"task.instruction": task.instruction, "the longest of task.demos": longest}
    for stage in pipeline.values():
        words = max((prompts.literal_text(name) for name in stage.templates), key=len, default="")
        for piece in pieces(stage):
            own = {f"the wording of the prompts of {stage.name}": words} if _asks(stage, piece) else {}
            if hasattr(piece, "check_prompt"):
                piece.check_prompt(parts={**parts, **own})


def _asks(stage: Any, piece: Any) -> bool:
    """Whether the stage's own prompts go there, and not to a verifier's endpoint."""
    return piece is getattr(stage, "teacher", None)


def check_model(model: Any, pipeline: Mapping[str, Any]) -> None:
    """There is a base model; its folder exists unless it is made on first use; weights are here if needed."""
    if model is None:
        raise UserError("model is missing", allowed=options("model"), next_step="model=NAME")
    if model.prepare is None:
        model.locate()
    wants = [piece for stage in pipeline.values() for piece in pieces(stage) if getattr(piece, "needs_weights", False)]
    if model.path is None and model.prepare is None and wants:
        raise UserError(
            f"model {model.name} has no weights on this machine, but {type(wants[0]).__name__} needs them",
            next_step="give model=hf model.path=..., or rollout=server train=none for a model that a server offers",
        )


def check_pictures(task: Any, model: Any, pipeline: Mapping[str, Any]) -> None:
    """Whoever is shown a task's pictures reads them."""
    seeds = "seeds" in pipeline and bool(task.gold and task.gold.images)
    taught = seeds or ("generate" in pipeline and task.pictures is not None)
    shown = taught or bool(task.test and task.test.images and any("test" in one.inputs for one in pipeline.values()))
    asked = any("base" in one.inputs for one in pipeline.values())
    if shown and asked and model is not None and model.reads_images() is False:
        raise UserError(
            f"model {model.name} reads no pictures, and the questions of task {task.name} come with some",
            got=f"model.images={str(model.images).lower()}",
            next_step="give a vision-language model: model=qwen2_5_vl_7b_instruct, or model=hf model.path=...",
        )
    judged = shown and "difficulty" in pipeline
    for name, stage in pipeline.items() if taught or judged else ():
        _check_reader(task, name, stage)


def _check_reader(task: Any, name: str, stage: Any) -> None:
    blind: list[Any] = [
        one for one in pieces(stage) if getattr(one, "images", None) is False and hasattr(one, "base_url")
    ]
    if blind and name in ("generate", "score", "rewrite", "difficulty"):
        raise UserError(
            f"{name}: {blind[0].model} reads no pictures, and the questions of task {task.name} come with some",
            got="images: false",
            next_step="take one that does, such as teacher=gpt4o; or say so if this one does: teacher.images=true",
        )
    if not getattr(stage, "pictures", True):
        raise UserError(
            f"{name}: {type(stage).__name__} can't learn from pictures",
            got=f"task {task.name}, whose questions come with some",
            allowed="train=trl, train=verl, train=none",
        )


def _refused(error: ValidationError, target: Any, prefix: str) -> UserError:
    first = error.errors()[0]
    name = ".".join(str(step) for step in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = sorted(getattr(target, "__dataclass_fields__", {}))
        return UserError(f"{prefix}{name}: unknown key", allowed=allowed, next_step=_meant(name, allowed))
    if first["type"] == "missing":
        return UserError(f"{prefix}{name} is missing", next_step=f"give {prefix}{name}=...")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    return UserError(f"{prefix}{name}: {first['msg']}", got=repr(first["input"]), next_step=f"give {prefix}{name}=...")


def _with_kind(node: dict[str, Any], key: str) -> dict[str, Any]:
    """`kind: number` is short for the `_target_` of that answer kind."""
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


def _target(path: Any, key: str, plugins: tuple[str, ...]) -> Any:
    roots = ("dsrl", *plugins)
    if not isinstance(path, str) or not any(path.startswith(f"{root}.") for root in roots):
        raise UserError(
            f"{key}._target_: only classes of dsrl and of the modules in `plugins` may be built",
            got=path,
            allowed=[f"{root}.*" for root in roots],
            next_step="plugins=[your_module]",
        )
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_: {path} can't be imported", got=str(error)) from error


def _require(config: DictConfig, group: str, field: str, example: str) -> None:
    node = config.get(group)
    if node is None or field not in node or OmegaConf.is_missing(node, "name" if group == "task" else field):
        raise UserError(f"{group} is missing", allowed=options(group), next_step=f"{group}=NAME, for example {example}")


def options(group: str) -> list[str]:
    """The choices of a config group, those of `--config-dir` folders among them."""
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    if hydra is not None:
        return [name for name in hydra.config_loader.get_group_options(group) if not name.startswith("_")]
    return sorted(path.stem for path in (home() / "conf" / group).glob("[!_]*.yaml"))


def _refuse_unknown(config: DictConfig) -> None:
    """Hydra refuses a mistyped key in an override but merges one out of a YAML file without a word."""
    known = known_keys() | set(map(str, config.pipeline))
    for key in map(str, config):
        if key not in known:
            raise UserError(
                f"{key}: unknown key at the top of the config{_where(key)}",
                allowed=sorted(known),
                next_step=_meant(key, sorted(known)),
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


def _where(key: str) -> str:
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


def _meant(name: str, allowed: list[str]) -> str:
    close = get_close_matches(name.rpartition(".")[2], allowed, 1)
    return f"did you mean `{close[0]}`?" if close else "take it out"
