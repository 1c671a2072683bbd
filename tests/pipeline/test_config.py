import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from dsrl.cli.compose import refuse_secrets
from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.data.source import Source
from dsrl.graders import Number
from dsrl.pipeline import config
from dsrl.pipeline.config import build
from dsrl.stages.train.rl import ENGINES
from tests.composed import built, values

CONF = home() / "conf"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("[!_]*.yaml"))]
"""Those in folders of a group's own are experiments: tests/cli/test_experiments.py."""
NEEDED = {
    ("task", "adhoc"): ["task.instruction=Add."],
    ("task", "quickstart_visual"): ["model.images=true"],
    ("teacher", "server"): ["teacher.model=m", "teacher.base_url=http://localhost:1/v1"],
    **{("teacher", name): ["teacher.model=m"] for name in ("azure", "ollama", "openrouter", "vllm")},
    ("model", "hf"): ["model.path=."],
    **{("verify", path.stem): ["pipeline=synthrl"] for path in (CONF / "verify").glob("*.yaml")},
    ("cluster", "ray"): ["cluster.address=10.0.0.5:6379"],
    ("model", "server"): ["model.name=m", "rollout=server", "train=none"],
    **{("rl", name): ["train=verl"] for name in ENGINES["verl"] if name not in ENGINES["trl"]},
}
"""What a choice leaves to the user."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "OPENROUTER"):
        monkeypatch.setenv(f"{provider}_API_KEY", "not a key")
    monkeypatch.setenv("AZURE_OPENAI_RESOURCE", "ours")


def local(task: str) -> list[str]:
    """Overrides that put a file of ours in the place of data on the hub."""
    sets = ["test", *(["gold"] if "\ngold:" in (CONF / "task" / f"{task}.yaml").read_text(encoding="utf-8") else [])]
    paths = (Path(__file__).parents[1] / "cli" / "tasks" / "data").glob(f"{task}.*")
    return [f"task.{name}.path={path}" for path in paths for name in sets]


def has_demos(task: str) -> bool:
    """Visual tasks have none."""
    return "\ndemos:" in (CONF / "task" / f"{task}.yaml").read_text(encoding="utf-8")


@pytest.fixture
def small_test_set(tmp_path: Path) -> str:
    """Overrides that put a local file in the place of a test set on the hub."""
    path = tmp_path / "test.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    return f"task.test.path={path}"


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_of_every_group_is_composed_and_built(group: str, choice: str, small_test_set: str) -> None:
    seeing = group == "task" and not has_demos(choice) and choice != "adhoc"
    usual = {"task": "gsm8k", "teacher": "offline", "model": f"qwen2_5_{'vl_' if seeing else ''}3b_instruct"}
    overrides = [f"{name}={value}" for name, value in {**usual, group: choice}.items()]
    overrides += local(choice) if group == "task" else [small_test_set]
    overrides += NEEDED.get((group, choice), [])
    pipeline, state = built(*overrides)
    assert pipeline
    for stage in pipeline.values():
        assert len(stage.key(dict.fromkeys(stage.inputs, "0"))) == 20
    if group == "task":
        assert state.task.name == choice


def sweeps() -> list[tuple[str, str]]:
    """Every value of every dial that a sweep experiment turns."""
    found = []
    for path in sorted((CONF / "experiment").rglob("sweep_*.yaml")):
        dials = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
        name = str(path.relative_to(CONF / "experiment").with_suffix(""))
        found += [(name, f"{dial}={value}") for dial, values in dials.items() for value in str(values).split(",")]
    return found


@pytest.mark.parametrize(("name", "override"), sweeps())
def test_every_value_of_a_sweep_is_composed_and_built(name: str, override: str, small_test_set: str) -> None:
    assert built("task=gsm8k", "teacher=gpt4o", f"experiment={name}", override.strip(), small_test_set)


@pytest.mark.parametrize("name", [name for group, name in CHOICES if group == "task" and has_demos(name)])
def test_every_task_grades_its_own_demos_right(name: str) -> None:
    _, state = built(f"task={name}", "teacher=offline", *NEEDED.get(("task", name), []), *local(name))
    for demo in state.task.demos:
        grader = state.task.answer.for_question(demo.input)
        answer = grader.gold(demo.output)
        assert answer is not None
        grade = grader.grade(demo.output, answer)
        assert (grade.correct, grade.format_ok) == (True, True), demo.output


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


FILES = sorted(path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] != "hydra")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_public_field_stands_in_the_yaml_with_its_default(path: Path) -> None:
    """Otherwise a mistyped knob would not be one that Hydra can refuse, and nobody would know of it."""
    for node in nodes(yaml.safe_load(path.read_text(encoding="utf-8"))):
        cls = config._import_target(node["_target_"], "x", ())
        fields = {field.name for field in dataclasses.fields(cls)}
        written = set(node) - {"_target_", "<<"} - ({"kind"} if "kind" in node else set())
        assert written <= fields, f"{sorted(written - fields)} are no fields of {node['_target_']}"
        assert fields <= written, f"{sorted(fields - written)} of {node['_target_']} are not in {path.name}"


def test_the_dials_are_those_of_the_yaml() -> None:
    written = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    text = (CONF / "config.yaml").read_text(encoding="utf-8").partition("# Settings\n")[2].partition("\n\n")[0]
    names = {field.name for field in dataclasses.fields(config.Settings)}  # type: ignore[arg-type]
    assert {line.partition(":")[0] for line in text.splitlines()} == names
    assert names <= set(written)


USUAL = ("task=quickstart", "teacher=offline", "model=hf", "model.path=.")


def test_values_of_the_command_line_reach_the_stages() -> None:
    pipeline, _ = built(*USUAL, "n=7", "m=3", "votes=5", "rollouts=9", "seed=4", "generate.verify.0.min_share=0.6")
    generate, select, score = (pipeline[name] for name in ("generate", "select", "score"))
    found = [generate.n, generate.seed, generate.verify[0].votes, generate.verify[0].min_share]  # type: ignore[attr-defined]
    assert found == [7, 4, 5, 0.6]
    assert (select.m, score.rollouts) == (3, 9)  # type: ignore[attr-defined]
    assert pipeline["rewrite"].verify == generate.verify  # type: ignore[attr-defined]


def test_stages_come_in_the_order_of_the_yaml() -> None:
    pipeline, _ = built(*USUAL)
    written = yaml.safe_load((CONF / "pipeline" / "synthetic_data_rl.yaml").read_text(encoding="utf-8"))
    assert list(pipeline) == list(written["pipeline"])


def test_dropping_a_stage_is_an_override() -> None:
    assert "report" not in built(*USUAL, "~pipeline.report")[0]


def test_two_verifiers_stand_in_a_list() -> None:
    vote = "{_target_: dsrl.stages.generate.MajorityVote, teacher: ${teacher}, votes: 1, stop: none}"
    pipeline, _ = built(*USUAL, f"generate.verify=[{vote}, {vote}]")
    assert len(pipeline["generate"].verify) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["n=abc"], ["n: ", "'abc'", "n=..."]),
        (["m=-1"], ["m: ", "-1", "greater than or equal to 1"]),
        (["m=0"], ["m: ", "0"]),
        (["m=1.5"], ["m: ", "1.5"]),
        (["m=true"], ["m: ", "True"]),
        (["votes=null"], ["votes: ", "None"]),
        (["seed=-1"], ["seed: "]),
        (["budget_usd=-5"], ["budget_usd: ", "-5"]),
        (["budget_tokens=-5"], ["budget_tokens: ", "-5"]),
        (["budget_tokens=1.5"], ["budget_tokens: ", "1.5"]),
        (["name=a/b"], ["name: ", "'a/b'"]),
        (["rewrite.direction=up"], ["rewrite.direction: ", "'up'", "'harder'"]),
        (["select.fill=maybe"], ["select.fill: ", "'maybe'"]),
        (["generate.verify.0.min_share=2"], ["generate.verify.0.min_share: ", "2"]),
        (["teacher.concurrency=0"], ["teacher.concurrency: ", "0"]),
        (["teacher.temperature=warm"], ["teacher.temperature: ", "'warm'"]),
        (["task.answer.tolerance=-1"], ["task.answer.tolerance: ", "-1"]),
        (["train.keep=worst"], ["train.keep: ", "'worst'"]),
        (["rollout.device=tpu"], ["rollout.device: ", "'tpu'"]),
        (["plugins=[no_such_module]"], ["plugins: module no_such_module", "PYTHONPATH"]),
        (["stop_after=nope"], ["stop_after: no such stage", "nope", "generate"]),
        (["~pipeline.probe"], ["`rewrite` needs `probe`", "next:"]),
        (["~pipeline.generate"], ["needs `samples`", "next:"]),
        (["+generate.verify.0.vote=3"], ["generate.verify.0.vote: unknown key", "did you mean `votes`?"]),
        (["+task.kind=number"], ["task.kind: unknown key"]),
        (["generate._target_=os.system"], ["only components of dsrl", "os.system", "dsrl.*", "plugins"]),
        (["generate._target_=dsrlx.generate.Generate"], ["only components of dsrl", "dsrlx.generate.Generate"]),
        (["generate._target_=dsrl.stages.generate.Nope"], ["dsrl.stages.generate.Nope can't be imported"]),
        (["generate._target_=dsrl.nope.Nope"], ["dsrl.nope.Nope can't be imported"]),
        (["generate._target_=7"], ["only components of dsrl", "7"]),
        (["+pipeline.extra={}"], ["`extra` is not a stage"]),
        (["+pipeline.extra=${select.fill}"], ["`extra` is not a stage"]),
        (["task.instruction=''"], ["task.instruction: ", "at least 1 character"]),
        (["task.demos=[{input: x}]"], ["demo 1", "next:"]),
        (["task.demos=nowhere.jsonl"], ["no such data file", "nowhere.jsonl"]),
        (["model.path=/no/such/folder"], ["model.path: no such folder", "/no/such/folder"]),
        (["model.path=null"], ["no weights on this machine", "model.path=..."]),
    ],
    ids=lambda value: value[0] if len(value[0]) < 60 else None,
)
def test_a_wrong_value_names_its_key_and_what_is_allowed(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        built(*USUAL, *overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["task is missing", "adhoc", "gsm8k", "quickstart", "task=NAME"]),
        (["task=quickstart"], ["teacher is missing", "gpt4o", "offline", "server", "teacher=NAME"]),
        (["teacher=offline"], ["task is missing"]),
        (["task=quickstart", "teacher=server"], ["teacher is missing"]),
        (["task=adhoc", "teacher=offline"], ["task.instruction"]),
        (["task=quickstart", "teacher=offline", "model=hf"], ["model.path"]),
    ],
)
def test_what_is_missing_is_asked_for_with_the_choices(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        built(*overrides)
    for word in words:
        assert word in str(caught.value)


def test_measuring_a_model_needs_no_teacher() -> None:
    pipeline, _ = built("pipeline=evaluate", "task=quickstart", "model=hf", "model.path=.")
    assert list(pipeline) == ["evaluate_base", "report"]


def test_a_missing_key_variable_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch, small_test_set: str) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set") as caught:
        built("task=quickstart", "teacher=gpt4o")
    assert "export OPENAI_API_KEY=" in str(caught.value)


def test_tolerance_and_kind_in_the_short_form() -> None:
    short = {"name": "t", "instruction": "Add.", "answer": {"kind": "number", "tolerance": 1}}
    task = build({"_target_": "dsrl.data.Task", **short}, "task")
    assert task.answer == Number(tolerance=1.0)


@pytest.mark.parametrize("kind", ["nope", "Number", 3, None])
def test_an_unknown_answer_kind_lists_those_there_are(kind: object) -> None:
    with pytest.raises(UserError, match=r"task.answer.kind: no such answer kind") as caught:
        build({"kind": kind}, "task.answer")
    assert "choice, code, json, label, list, math, mixed, number" in str(caught.value)
    assert "plugins" in str(caught.value)


@component("tests.test_config.Box")
class Box(Component):
    width: float = Field(gt=0)
    labels: tuple[str, ...] = ()


def test_a_plugin_may_be_named_in_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": f"{__name__}.Box", "width": 2}
    with pytest.raises(UserError, match="only components of dsrl"):
        build(node, "box")
    assert type(build(node, "box", (__name__,))).__name__ == "Box"


@pytest.mark.parametrize(
    "override",
    [
        "+teacher.api_key=SECRETVALUE",
        "teacher.api_key=SECRETVALUE",
        "++teacher.apikey=SECRETVALUE",
        "+hf_token=SECRETVALUE",
        "+teacher.extra.password=SECRETVALUE",
        "+teacher.extra.secret=SECRETVALUE",
        "teacher.api_key_env=sk-SECRETVALUE",
        "teacher.model='sk-SECRETVALUE'",
        "+anything=hf_SECRETVALUE",
        "+headers={Authorization: 'Bearer sk-SECRETVALUE'}",
        "+teacher.extra={api_key: SECRETVALUE}",
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(UserError, match="a secret doesn't belong") as caught:
        refuse_secrets([override])
    assert "SECRETVALUE" not in str(caught.value)
    assert "api_key_env=OPENAI_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "teacher.api_key_env=OPENAI_API_KEY",
        "teacher.max_tokens=400",
        "train.max_response_tokens=9",
        "task=secret_santa",
        "name=sketch",
        "--cfg",
        "score.max_tokens=128",
        "task.instruction='Is the token: secret?'",
        "teacher.extra={api_key_env: NAME}",
        "name=risk-assessment-of-tasks",
    ],
)
def test_ordinary_overrides_are_no_secrets(override: str) -> None:
    refuse_secrets([override])


def written(folder: Path, name: str, text: str) -> Path:
    """A config folder of the user's own."""
    path = folder / "my_conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder / "my_conf"


def test_a_task_of_the_users_own_needs_a_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("frage,antwort\n1 + 1?,2\n")
    text = f"""
name: mine
instruction: Add numbers.
answer: {{kind: number}}
test: {{path: "{tmp_path}/test.csv", input: frage, output: antwort}}
"""
    folder = written(tmp_path, "task/mine", text)
    _, state = built("task=mine", "teacher=offline", "model=hf", "model.path=.", config_dir=folder)
    assert state.task.answer == Number()
    assert state.task.test == Source(path=str(tmp_path / "test.csv"), input="frage", output="antwort")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: mine\ninstruction: Add.\nanswer: {kind: number}\ndemoes: []", ["task.demoes", "demos"]),
        ("name: mine\ninstruction: Add.\nanswer: {kind: number, marker: ''}", ["task.answer.marker"]),
        ("name: mine\ninstruction: Add.\nanswer: {kind: numbr}", ["task.answer.kind", "numbr", "number"]),
        ("name: mine\ninstruction: Add.", ["task.answer"]),
        ("name: mine\nanswer: {kind: number}", ["task.instruction"]),
        ("name: my task\ninstruction: Add.\nanswer: {kind: number}", ["name", "my task"]),
    ],
)
def test_a_mistake_in_a_task_file_names_the_key(text: str, words: list[str], tmp_path: Path) -> None:
    folder = written(tmp_path, "task/mine", text)
    with pytest.raises(UserError) as caught:
        built("task=mine", "teacher=offline", "model=hf", "model.path=.", config_dir=folder)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("key", "meant"), [("rolouts: 3", "rollouts"), ("scor: {low: 0.2}", "score"), ("evaluate: {}", "evaluate_base")]
)
def test_a_mistyped_key_in_an_experiment_file_is_refused(key: str, meant: str, tmp_path: Path) -> None:
    folder = written(tmp_path, "experiment/mine", f"# @package _global_\nn: 5\n{key}\n")
    with pytest.raises(UserError, match="unknown key") as caught:
        built(*USUAL, "experiment=mine", config_dir=folder)
    assert key.partition(":")[0] in str(caught.value)
    assert f"did you mean `{meant}`" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["select: {fil: none}", "teacher: {modell: x}", "generate: {verify: [{_target_: dsrl.Nope}]}"]
)
def test_a_mistyped_key_deeper_in_an_experiment_file_is_refused_too(text: str, tmp_path: Path) -> None:
    folder = written(tmp_path, "experiment/mine", f"# @package _global_\n{text}\n")
    with pytest.raises(UserError):
        built(*USUAL, "experiment=mine", config_dir=folder)


def test_nothing_built_from_text_is_evaluated() -> None:
    """The only code that a config can name is a class of a listed module."""
    tree = ast.parse(inspect.getsource(config))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "__import__", "compile"}
    assert values(*USUAL, "task.instruction='__import__(1)'")["task"]["instruction"] == "__import__(1)"


def test_a_judge_of_pictures_reads_them_and_the_base_model_need_not() -> None:
    judge = ("pipeline=difficulty", "task=geo3k", *local("geo3k"), "teacher=offline", "model=qwen2_5_7b")
    assert built(*judge, "teacher.images=true")
    with pytest.raises(UserError, match=r"difficulty: .* does not accept images"):
        built(*judge, "teacher.images=false")
