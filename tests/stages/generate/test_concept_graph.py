import random
from collections import Counter

from dsrl.stages.generate.synthllm import ConceptGraph, Concepts

DOCUMENTS = (
    Concepts(topics=["Harbour"], concepts=["boats", "Nets ", "ropes"]),
    Concepts(topics=["harbour", "market"], concepts=["nets", "scales"]),
    Concepts(topics=["market"], concepts=["scales", "apples"]),
    Concepts(topics=[], concepts=[]),
    Concepts(topics=[], concepts=["kites"]),
)
GRAPH = ConceptGraph(DOCUMENTS)


def test_names_are_normalised() -> None:
    assert GRAPH.documents[0].concepts == ("boats", "nets", "ropes")
    assert GRAPH.num_concepts == 6


def test_walks_follow_edges_and_are_deterministic() -> None:
    seen = set()
    for seed in range(200):
        walk = GRAPH.walk(0, 1, 3, random.Random(seed))
        assert walk == GRAPH.walk(0, 1, 3, random.Random(seed))
        assert walk.topics[0] == "harbour"
        assert set(walk.topics) <= {"harbour", "market"}
        seen |= set(walk.concepts)
    assert seen == {"boats", "nets", "ropes", "scales", "apples"}, "it crosses documents, but never to an island"


def test_a_walk_without_steps_stays_in_its_document() -> None:
    walk = GRAPH.walk(2, 0, 0, random.Random(1))
    assert walk.topics == ("market",)
    assert len(walk.concepts) == 1


def test_edges_are_weighted_by_documents() -> None:
    pairs = [Concepts(topics=["t"], concepts=["a", "b"])] * 3 + [Concepts(topics=["t"], concepts=["a", "c"])]
    graph = ConceptGraph(pairs)
    ends = Counter(graph._path(graph._concept_edges, ("a",), 1, random.Random(seed))[-1] for seed in range(400))
    assert 0.65 < ends["b"] / 400 < 0.85


def test_a_document_without_topics_starts_with_a_concept() -> None:
    assert GRAPH.walk(4, 1, 3, random.Random(0)) == ((), ("kites",))


def test_nearest_documents_come_first() -> None:
    walk = GRAPH.walk(2, 0, 0, random.Random(0))
    assert GRAPH.nearest(walk, 2)[0] == 2
    assert len(GRAPH.nearest(walk, 9)) == 5
