import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.infra.tracking import Tracking, run_entry
from tests.stages.report.made import make_study


def test_a_group_that_stages_repeat_is_logged_as_its_name():
    teacher = {"model": "gpt-4o", "temperature": 0.7}
    values = {
        "n": 500,
        "teacher": teacher,
        "generate": {"teacher": teacher, "verify": [teacher], "pattern": True, "limit": None},
        "pipeline": {"generate": {"teacher": teacher}, "score": {}},
    }
    assert run_entry.parameters(values) == {
        "n": "500",
        "teacher.model": "gpt-4o",
        "teacher.temperature": "0.7",
        "generate.teacher": "${teacher}",
        "generate.verify": '[{"model": "gpt-4o", "temperature": 0.7}]',
        "generate.pattern": "true",
        "generate.limit": "null",
        "pipeline": "generate -> score",
    }


def test_secrets_are_not_logged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    values = {
        "teacher": {
            "api_key_env": "SOME_KEY",
            "base_url": "https://me:pass@host/v1",
            "extra": {"note": "Bearer sk-very-secret", "auth_token": "abc", "max_tokens": 12},
        },
        "list": [{"api_key_env": "SOME_KEY"}, "sk-very-secret"],
    }
    found = run_entry.parameters(values)
    assert found["teacher.api_key_env"] == "SOME_KEY"
    assert found["teacher.base_url"] == "https://host/v1"
    assert found["teacher.extra.note"] == "Bearer ***"
    assert found["teacher.extra.auth_token"] == "***"
    assert found["teacher.extra.max_tokens"] == "12"
    assert "sk-very-secret" not in json.dumps(found)


def test_long_values_are_cut_and_odd_names_mended():
    found = run_entry.parameters({"task": {"instruction": "x" * 9000, "a+b": 1}})
    assert len(found["task.instruction"]) == run_entry.MAX_PARAMETER
    assert found["task.a_b"] == "1"


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_only_finite_numbers_become_metrics(value: object):
    found = run_entry.numbers({"part": value}, "")
    assert all(isinstance(number, float) and abs(number) < float("inf") for number in found.values())
    assert all(name and not run_entry.INVALID.search(name) and len(name) <= 250 for name in found)


def test_a_finished_run_in_plain_values(tmp_path: Path):
    state, context = make_study(tmp_path, count=8)
    closing = run_entry.closing(context, state, "FINISHED")
    assert json.loads(json.dumps(closing)) == closing
    assert closing["metrics"]["rows/generate/rejected/no majority"] == 22
    assert closing["metrics"]["evaluation/base/pass_at_1"] == state.evaluation_base.pass_at_1.value
    assert closing["metrics"]["compare/difference/p_value"] == 0.0001
    assert "calls/model/usd" not in closing["metrics"]
    assert closing["tags"]["dsrl.key.train"] == "c01d" * 5
    assert [(given["name"], given["rows"]) for given in closing["data_sets"]] == [
        ("counting-selected", len(state.selected))
    ]
    assert [Path(path).name for path in closing["artifacts"]] == ["config.yaml"]
    assert run_entry.closing(context, None, "FAILED")["data_sets"] == []


def test_the_run_s_own_record_names_the_code(tmp_path: Path):
    _, context = make_study(tmp_path, count=1)
    record = {"dsrl": "1.2.3", "git": {"commit": "abc", "changed": True}}
    (context.run_dir / "run.json").write_text(json.dumps(record))
    tags = run_entry.tags(context)
    assert (tags["dsrl.version"], tags["mlflow.source.git.commit"], tags["dsrl.git.changed"]) == (
        "1.2.3",
        "abc",
        "True",
    )


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (None, "sqlite:////data/store/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////data/own.db", "sqlite:////data/own.db"),
        ("sqlite:///own.db", "sqlite:///{here}/own.db"),
    ],
)
def test_the_address_does_not_depend_on_the_working_folder(uri, expected):
    assert Tracking(uri=uri).address(Path("/data/store")) == expected.format(here=Path.cwd())


def test_the_usual_variable_names_the_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert Tracking().address(Path("/data/store")) == "http://host:5000"
    assert Tracking(uri="http://other").address(Path("/data/store")) == "http://other"


def test_a_password_is_refused_in_the_config():
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        Tracking(uri="https://me:hidden@host")
    assert "hidden" not in refused.value.errors()[0]["msg"]


def test_tracking_that_is_off_does_nothing(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    tracking = Tracking(enabled=False)
    tracking.start(context, {})
    tracking.track(context, {}, state, "finished")
    assert not context.store.root.exists()
