from hypothesis import given
from hypothesis import strategies as st

from dsrl.models.rollout.transformers import ReplyIndex, make_batches

prompts = st.lists(st.text(max_size=5), max_size=12)
sizes = st.integers(1, 9)


@given(prompts, st.integers(1, 6), sizes)
def test_batches_cover_every_reply_once(prompts: list[str], count: int, size: int) -> None:
    plan = make_batches(prompts, count, size)
    rows = [row for batch in plan for row in batch]
    assert sorted(rows) == [ReplyIndex(number, reply) for number in range(len(prompts)) for reply in range(count)]
    assert all(0 < len(batch) <= size for batch in plan)


@given(prompts, st.integers(1, 4), st.integers(1, 4), sizes)
def test_more_replies_keep_the_earlier_batches(prompts: list[str], count: int, factor: int, size: int) -> None:
    at_once = max(1, size // max(1, len(prompts)))
    few, many = (make_batches(prompts, count * at_once * times, size) for times in (1, factor))
    assert many[: len(few)] == few


def test_prompts_of_similar_length_share_a_batch() -> None:
    assert make_batches(["long one", "a", "another", "b"], 1, 2) == [
        [ReplyIndex(1, 0), ReplyIndex(3, 0)],
        [ReplyIndex(2, 0), ReplyIndex(0, 0)],
    ]
