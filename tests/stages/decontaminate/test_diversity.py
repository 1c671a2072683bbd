import json
import random
from pathlib import Path

import pytest

from dsrl.data.sample import new_sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Choice, Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Diversity, diversity


def test_distinct_share() -> None:
    texts = [["a", "b", "a"], ["a", "b"]]
    assert diversity.distinct_share(texts, 1) == 2 / 5
    assert diversity.distinct_share(texts, 2) == 2 / 3
    assert diversity.distinct_share(texts, 4) is None


def test_similarity_within_a_set() -> None:
    equal, apart = [["red", "hat"]] * 4 + [["x"]], [["a", "b"], ["c", "d"], ["e", "f"]]
    (one,) = diversity.tfidf_vectors([equal])
    found = diversity.similarity_within(one[:4])
    assert found == {"pairs": 1.0, "nearest": 1.0, "nearest_p95": 1.0}
    (two,) = diversity.tfidf_vectors([apart])
    assert diversity.similarity_within(two) == {"pairs": 0.0, "nearest": 0.0, "nearest_p95": 0.0}
    assert diversity.similarity_within(two[:1]) is None


def test_similarity_to_another_set() -> None:
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(300)]
    test = [[rng.choice(vocabulary) for _ in range(12)] for _ in range(40)]
    fresh = [[rng.choice(vocabulary) for _ in range(12)] for _ in range(40)]
    near, far, there = diversity.tfidf_vectors([test, fresh, test[:10]])
    copied, other = diversity.similarity_to(there, near), diversity.similarity_to(far, near)
    assert copied is not None
    assert other is not None
    assert copied["nearest"] == pytest.approx(1.0, abs=0.01)
    assert other["nearest"] < 0.5
    assert diversity.similarity_to(near[:0], near) is None


def test_length_histogram() -> None:
    bounds = diversity.bin_edges([[1, 2, 3, 50], [4]])
    assert sum(diversity.histogram([1, 2, 3, 50], bounds)) == 4
    assert diversity.histogram([0, 10**6], bounds)[-1] == 1
    assert diversity.bin_edges([]) == [0, 1]
    assert diversity.summarise([7]) == {"mean": 7, "p5": 7.0, "p50": 7.0, "p95": 7.0}


def test_answer_balance() -> None:
    assert diversity.answer_balance({"samples": ["B", "A", "B", "B"], "selected": ["A"], "test": []}) == {
        "samples": {"A": 0.25, "B": 0.75},
        "selected": {"A": 1.0, "B": 0.0},
    }


def make_state(folder: Path, answer: Choice | Number) -> PipelineState:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps({"Input": f"item {number}?", "Output": "B"}) + "\n" for number in range(5)))
    given = isinstance(answer, Choice)
    task = Task(name="t", instruction="Choose.", answer=answer, test=Source(path=str(path)) if given else None)
    samples = [
        new_sample("t", f"sample {number} " + "long " * number, "AB"[number % 2] if given else "1", "initial")
        for number in range(8)
    ]
    return PipelineState(task=task, samples=tuple(samples), selected=tuple(sample.id for sample in samples[:3]))


def test_samples_selection_and_test_set_are_measured(tmp_path: Path, context: Context) -> None:
    figures = Diversity(draws=4)(make_state(tmp_path, Choice(options="AB")), context).figures
    assert {name: measured["count"] for name, measured in figures["sets"].items()} == {
        "samples": 8, "selected": 3, "test": 5,
    }  # fmt: skip
    assert figures["drawn"] == 3
    assert figures["answers"]["samples"] == {"A": 0.5, "B": 0.5}
    assert figures["answers"]["selected"] == {"A": pytest.approx(2 / 3), "B": pytest.approx(1 / 3)}
    assert figures["answers"]["test"] == {"A": 0.0, "B": 1.0}
    assert figures["sets"]["test"]["to_test"] is None
    assert figures["sets"]["samples"]["to_test"]["nearest"] >= 0
    json.dumps(figures)


def test_order_of_samples_changes_nothing(tmp_path: Path, context: Context) -> None:
    state = make_state(tmp_path, Choice(options="AB"))
    turned = state.add(samples=state.samples[::-1])
    assert Diversity(draws=3)(state, context).figures == Diversity(draws=3)(turned, context).figures


def test_without_a_test_set_or_options(tmp_path: Path, context: Context) -> None:
    figures = Diversity()(make_state(tmp_path, Number()), context).figures
    assert list(figures["sets"]) == ["samples", "selected"]
    assert figures["answers"] is None
    assert Diversity()(PipelineState(task=make_state(tmp_path, Number()).task), context).figures["sets"] == {}
