import pytest

from dsrl.pipeline.context import Context


@pytest.fixture
def context(context: Context) -> Context:
    """The context of a running `score` stage."""
    context.stage = "score"
    return context
