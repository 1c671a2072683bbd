import json
import random

from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.prompts import render
from dsrl.quickstart.rules import ErrorRates, reply
from dsrl.quickstart.stories import draw, parse
from dsrl.quickstart.variants import harder_same, judge

TASK = Task(name="t", instruction="Read counting stories and say how many are left.", answer=Number())


def test_harder_story_has_the_same_answer_and_more_changes() -> None:
    rng = random.Random(0)
    for number in range(300):
        story = draw(rng, 1 + number % 4)
        harder = parse(harder_same(story, False, rng).text)
        assert harder.answer == story.answer
        assert len(story.changes) < len(harder.changes) <= len(story.changes) + 2
        slipped = parse(harder_same(story, True, rng).text)
        assert abs(slipped.answer - story.answer) == 1


def test_judge_scores_steps_not_answers() -> None:
    rng = random.Random(1)
    story = draw(rng, 2)
    for slip in (False, True):
        score, reason = judge(story.text, harder_same(story, slip, rng).text)
        assert score >= 8, reason
    assert judge(story.text, story.text)[0] < 8
    assert judge(story.text, "What is love?")[0] == 0


def test_teacher_reads_the_pipelines_prompts() -> None:
    story, rng = draw(random.Random(2), 2), random.Random(3)
    asked = render("harder", task=TASK, pattern=None, demos=(), question=story.text, images=0)
    written = json.loads(reply([asked], frozenset(), ErrorRates(0.0, 0.0), rng).content or "")["question"]
    assert parse(written).answer == story.answer
    asked = render("quality", task=TASK, pattern=None, demos=(), question=story.text, rewritten=written, images=0)
    judgement = json.loads(reply([asked], frozenset({"score", "reason"}), ErrorRates(0.0, 0.0), rng).content or "")
    assert judgement["score"] >= 8


def test_unreadable_question_is_refused() -> None:
    asked = render("harder", task=TASK, pattern=None, demos=(), question="Prove Fermat's last theorem.", images=0)
    said = reply([asked], frozenset({"question"}), ErrorRates(0.0, 0.0), random.Random(0))
    assert said.content is None
    assert said.refusal
