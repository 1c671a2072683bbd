import pytest

from dsrl.pipeline.context import Context


@pytest.fixture
def context(context: Context) -> Context:
    """The surroundings while the stage `score` is at work."""
    context.stage = "score"
    return context
