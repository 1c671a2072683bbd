import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from dsrl.core.resources import home
from dsrl.data.source import read_rows
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.prompts import render
from dsrl.quickstart import OfflineTeacher
from dsrl.quickstart.rules import TOPICS
from dsrl.quickstart.stories import NAMES, NOUNS, parse
from dsrl.quickstart.teacher import MODEL, RunningTeacher

TASK = Task(
    name="stories",
    instruction="Answer short counting stories: how many things are there in the end?",
    demos=({"input": "Mia has 7 stamps. Mia gets 4 more. How many stamps now?", "output": "7+4=11 #### 11"},),
    answer=Number(),
)
STORY = "Mia has 3 cards. Mia wins 4 extra. Mia gives 2 away. Mia buys 4 more. How many cards now?"
PASSAGE = "On the pier Hugo and Vera sort crabs into baskets. Nobody counts the gulls."
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
FLAWLESS = OfflineTeacher(wrong=0, unparsable=0, busy=0)


def schema(*keys: str) -> dict[str, Any]:
    form = {"type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": list(keys)}
    return {"type": "json_schema", "json_schema": {"name": "anything", "strict": True, "schema": form}}


SAMPLE = schema("input", "output")


def post(
    running: RunningTeacher, body: Any, path: str = "/chat/completions"
) -> tuple[int, dict[str, Any], dict[str, str]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(running.url + path, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply), dict(reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def ask(running: RunningTeacher, prompt: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **fields}
    status, reply, _ = post(running, {key: value for key, value in body.items() if value is not None})
    assert status == 200, reply
    return list(reply["choices"])


def texts(running: RunningTeacher, prompt: str, **fields: Any) -> list[str]:
    return [choice["message"]["content"] for choice in ask(running, prompt, **fields)]


def prompt(name: str, **values: Any) -> str:
    usual = {
        "task": TASK,
        "demos": TASK.demos,
        "pattern": None,
        "passage": None,
        "index": 0,
        "picture": False,
        "images": 0,
    }
    return render(name, **{**usual, **values})


@pytest.fixture(scope="module")
def flawless() -> Iterator[RunningTeacher]:
    running = FLAWLESS.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def usual() -> Iterator[RunningTeacher]:
    running = OfflineTeacher(busy=0).start()
    yield running
    running.stop()


def test_number_of_keywords(flawless: RunningTeacher) -> None:
    (reply,) = texts(flawless, prompt("keywords", count=7), response_format=schema("keywords"))
    keywords = json.loads(reply)["keywords"]
    assert len(set(keywords)) == 7
    assert set(keywords) <= set(TOPICS)


def test_pattern_names_no_person_or_number_of_the_demos(flawless: RunningTeacher) -> None:
    (reply,) = texts(flawless, prompt("pattern"), response_format=schema("pattern"))
    assert not {"Mia", "stamps", "7"} & set(json.loads(reply)["pattern"].split())


def test_stories_use_the_passage(flawless: RunningTeacher) -> None:
    replies = texts(flawless, prompt("generate", passage=PASSAGE), response_format=SAMPLE, n=40)
    stories = [parse(json.loads(reply)["input"]) for reply in replies]
    assert {story.name for story in stories} == {"Hugo", "Vera"}
    assert {story.noun for story in stories} == {"crabs", "baskets"}
    assert {len(story.changes) for story in stories} == {1, 2, 3, 4}
    assert len({story.text for story in stories}) > 30


def test_unknown_people_and_things_are_used(flawless: RunningTeacher) -> None:
    passage = "In spring old Zbigniew bought three trombones from Wanda, who had several violins."
    replies = texts(flawless, prompt("generate", passage=passage), response_format=SAMPLE, n=40)
    stories = [parse(json.loads(reply)["input"]) for reply in replies]
    assert {story.name for story in stories} == {"Zbigniew", "Wanda"}
    assert {story.noun for story in stories} == {"trombones", "violins"}


def test_without_a_passage_it_uses_its_own_vocabulary(flawless: RunningTeacher) -> None:
    replies = texts(flawless, prompt("generate"), response_format=SAMPLE, n=40)
    stories = [parse(json.loads(reply)["input"]) for reply in replies]
    assert {story.name for story in stories} <= set(NAMES)
    assert {story.noun for story in stories} <= set(NOUNS)


@pytest.mark.parametrize(("direction", "step"), [("harder", 1), ("easier", -1)])
def test_rewrite_edits_the_story_and_ignores_the_given_answer(
    flawless: RunningTeacher, direction: str, step: int
) -> None:
    question = prompt("rewrite", direction=direction, input=STORY, answer="99")
    for reply in texts(flawless, question, response_format=SAMPLE, n=20):
        sample = json.loads(reply)
        story, given = parse(sample["input"]), parse(STORY)
        assert (story.name, story.noun, story.start) == ("Mia", "cards", 3)
        assert len(story.changes) == len(given.changes) + step
        assert len(set(story.changes) & set(given.changes)) >= len(given.changes) - 1
        assert sample["output"] == story.solution


def test_vote_is_free_text_that_ends_in_the_answer(flawless: RunningTeacher) -> None:
    replies = texts(flawless, TASK.prompt(STORY), n=20)
    assert {Number().parse(reply) for reply in replies} == {"9"}
    assert len(set(replies)) > 2


def test_output_format_follows_the_prompt(flawless: RunningTeacher) -> None:
    (boxed,) = texts(flawless, f"{STORY}\n\nPut the final number into \\boxed{{}}.")
    assert boxed.endswith("\\boxed{9}")
    (plain,) = texts(flawless, f"{STORY}\n\nJust tell me.")
    assert plain.endswith("The answer is 9.")


def test_error_rates_and_majority_votes(usual: RunningTeacher) -> None:
    rows = read_rows(home() / "tasks" / "quickstart" / "test.jsonl")[:120]
    counts, wrong_votes = Counter[str](), 0
    for row in rows:
        grades = [Number().grade(reply, row["answer"]) for reply in texts(usual, TASK.prompt(row["question"]), n=10)]
        counts.update(grade.reason for grade in grades)
        winner = Counter(grade.parsed for grade in grades if grade.parsed).most_common(1)[0][0]
        wrong_votes += winner != row["answer"]
    total = counts.total()
    assert counts["wrong"] / total == pytest.approx(0.06, abs=0.025)
    assert counts["no answer"] / total == pytest.approx(0.03, abs=0.02)
    assert wrong_votes == 0


def test_error_rate_of_written_solutions(usual: RunningTeacher) -> None:
    replies = texts(usual, prompt("generate"), response_format=SAMPLE, n=128)
    replies += texts(usual, prompt("generate", index=1), response_format=SAMPLE, n=128)
    samples = [json.loads(reply) for reply in replies]
    wrong = [sample for sample in samples if sample["output"] != parse(sample["input"]).solution]
    assert len(wrong) / len(samples) == pytest.approx(0.06, abs=0.04)


def test_choice_depends_on_request_and_index_only(usual: RunningTeacher) -> None:
    question = TASK.prompt(STORY)
    eight = texts(usual, question, n=8, seed=5)
    assert texts(usual, question, n=8, seed=5) == eight
    assert texts(usual, question, n=3, seed=5) == eight[:3]
    assert texts(usual, question, n=8, seed=6) != eight
    again = OfflineTeacher(busy=0).start()
    other = OfflineTeacher(busy=0, seed=1).start()
    assert texts(again, question, n=8, seed=5) == eight
    assert texts(other, question, n=8, seed=5) != eight
    again.stop()
    other.stop()


def test_temperature_zero_is_deterministic(usual: RunningTeacher) -> None:
    assert len(set(texts(usual, TASK.prompt(STORY), n=8, temperature=0))) == 1


def test_concurrent_clients_get_the_same_replies(usual: RunningTeacher) -> None:
    questions = [TASK.prompt(row["question"]) for row in read_rows(home() / "tasks" / "quickstart" / "test.jsonl")[:60]]
    alone = [texts(usual, question, n=4) for question in questions]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda question: texts(usual, question, n=4), questions)) == alone


def test_rate_limit_errors_do_not_change_replies() -> None:
    running = OfflineTeacher(wrong=0, unparsable=0, busy=0.5).start()
    body = {"model": MODEL, "messages": [{"role": "user", "content": TASK.prompt(STORY)}], "seed": 1}
    replies = [post(running, body) for _ in range(60)]
    running.stop()
    busy = [headers for status, _, headers in replies if status == 429]
    assert 15 <= len(busy) <= 45
    assert all(float(headers["Retry-After"]) > 0 for headers in busy)
    assert len({json.dumps(reply["choices"]) for status, reply, _ in replies if status == 200}) == 1


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("What is the capital of France?\n\nAnswer in one word.", None),
        ("Mia has 3 cards.\n\nEnd with ####.", None),
        (prompt("generate", task=TASK), schema("verdict", "reason")),
        (render("generate", task=Task(name="law", instruction="Answer questions on law.", answer=Number()), demos=(),
                pattern=None, passage=None, index=0, picture=False), SAMPLE),
        (prompt("rewrite", direction="harder", input="How tall is Everest?", answer="8849"), SAMPLE),
    ],
)  # fmt: skip
def test_unsupported_requests_are_refused(flawless: RunningTeacher, question: str, form: dict[str, Any] | None) -> None:
    (choice,) = ask(flawless, question, response_format=form)
    message = choice["message"]
    text = message["refusal"] if form else message["content"]
    assert text.startswith("I'm sorry")
    assert (message["content"] is None) == (form is not None)
    assert Number().parse(text) is None


def test_json_requested_in_the_prompt_alone(flawless: RunningTeacher) -> None:
    (reply,) = texts(flawless, prompt("generate", passage=PASSAGE))
    assert parse(json.loads(reply)["input"]).name in {"Hugo", "Vera"}


def test_repair_turn_is_answered_with_the_original_prompt(flawless: RunningTeacher) -> None:
    turns = [
        ("user", prompt("generate", passage=PASSAGE)),
        ("assistant", "{oh"),
        ("user", "That is no JSON. Once more."),
    ]
    messages = [{"role": role, "content": content} for role, content in turns]
    _, reply, _ = post(flawless, {"model": MODEL, "messages": messages, "response_format": SAMPLE})
    assert parse(json.loads(reply["choices"][0]["message"]["content"])["input"]).name in {"Hugo", "Vera"}


def test_reply_over_the_limit_is_truncated(flawless: RunningTeacher) -> None:
    (choice,) = ask(flawless, TASK.prompt(STORY), max_tokens=5)
    assert choice["finish_reason"] == "length"
    assert Number().parse(choice["message"]["content"]) is None


def test_usage_counts_words_and_punctuation(flawless: RunningTeacher) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "One, two?"}], "n": 2}
    _, reply, _ = post(flawless, body)
    usage = reply["usage"]
    assert usage["prompt_tokens"] == 4
    assert usage["completion_tokens"] > 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        ({"model": MODEL}, 400, "invalid_request"),
        ({"model": MODEL, "messages": []}, 400, "invalid_request"),
        (ASKED | {"n": 0}, 400, "invalid_request"),
        (ASKED | {"stream": True}, 400, "invalid_request"),
        (ASKED | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_request"),
        (ASKED | {"model": "gpt-4o"}, 404, "model_not_found"),
    ],
)
def test_malformed_requests_get_openai_style_errors(
    flawless: RunningTeacher, body: Any, status: int, code: str
) -> None:
    got, reply, _ = post(flawless, body)
    assert (got, reply["error"]["code"], reply["error"]["type"]) == (status, code, "invalid_request_error")
    assert reply["error"]["message"]


def test_unknown_path_is_not_found(flawless: RunningTeacher) -> None:
    assert post(flawless, ASKED, "/embeddings")[0] == 404


def test_model_list(flawless: RunningTeacher) -> None:
    with urllib.request.urlopen(f"{flawless.url}/models", timeout=30) as reply:
        assert [model["id"] for model in json.load(reply)["data"]] == [MODEL]


def test_stop_closes_the_port() -> None:
    running = FLAWLESS.start()
    running.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{running.url}/models", timeout=5)


@pytest.mark.parametrize(
    "fields", [{"wrong": 1.5}, {"unparsable": -0.1}, {"latency": -1.0}, {"seed": "0"}, {"wrng": 0.1}]
)
def test_invalid_settings_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        OfflineTeacher(**fields)


def test_busy_and_latency_are_not_in_the_key() -> None:
    assert OfflineTeacher(busy=0.5, latency=1.0).key_fields() == OfflineTeacher().key_fields()
    assert OfflineTeacher(wrong=0.5).key_fields() != OfflineTeacher().key_fields()


def test_contexts_seeds_and_concepts(flawless: RunningTeacher) -> None:
    shown: dict[str, Any] = {"task": TASK, "pattern": None, "demos": ()}
    (choice,) = ask(flawless, render("contexts", **shown, count=5), response_format=schema("contexts"))
    contexts = json.loads(choice["message"]["content"])["contexts"]
    assert len(set(contexts)) == 5
    prompt = render("instance_seed", **shown, context=contexts[0], index=0)
    (choice,) = ask(flawless, prompt, response_format=schema("seed"))
    seed = json.loads(choice["message"]["content"])["seed"]
    assert contexts[0] in seed
    prompt = render("constrained", **shown, context=contexts[0], seed=seed, label=None, index=0)
    (choice,) = ask(flawless, prompt, response_format=SAMPLE)
    story = parse(json.loads(choice["message"]["content"])["input"])
    assert story.name in seed
    assert story.noun in seed
    (choice,) = ask(
        flawless, render("concepts", **shown, passage=PASSAGE), response_format=schema("topics", "concepts")
    )
    found = json.loads(choice["message"]["content"])
    assert {"Hugo", "Vera", "crabs", "baskets"} <= set(found["concepts"])


def test_check_ignores_the_given_answer(flawless: RunningTeacher) -> None:
    right = Number().parse(ask(flawless, TASK.prompt(STORY))[0]["message"]["content"])
    for shown in (f"#### {right}", "#### 99", "no idea"):
        prompt = render("correct", task=TASK, pattern=None, demos=(), input=STORY, answer=shown)
        (choice,) = ask(flawless, prompt)
        assert Number().parse(choice["message"]["content"]) == right


def test_story_uses_countable_concepts(flawless: RunningTeacher) -> None:
    prompt = render(
        "recombine", task=TASK, pattern=None, demos=(), topics=("pier",), concepts=("crabs", "vera"),
        passages=(PASSAGE, "Omar has kites."), index=0,
    )  # fmt: skip
    (choice,) = ask(flawless, prompt, response_format=SAMPLE)
    story = parse(json.loads(choice["message"]["content"])["input"])
    assert (story.name, story.noun) == ("Vera", "crabs")
