"""The data card: what the rows are, where they come from, how they were made and what is not known of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dsrl import __version__
from dsrl.cli.export.source import Made
from dsrl.data.sample import Sample

LICENCES = (
    "apache-2.0",
    "mit",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "bsd-3-clause",
)
"""Those of data hubs' identifiers that are met here; others are named in words."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SOURCES = ("path", "config", "split", "revision", "licence")
SETTINGS = (
    ("n", "samples asked of the teacher"),
    ("votes", "answers a label"),
    ("rollouts", "replies a pass rate"),
    ("seed", "seed of the data"),
)
"""Dials that say how much was asked for."""


def card(made: Made, form: str, rows: Mapping[str, int], pictures: int) -> str:
    """Markdown with a head of YAML."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    pages.filters.update(cell=cell, settings=settings)
    front = yaml.safe_dump(head(made, form, rows, pictures), sort_keys=False, allow_unicode=True)
    metrics = made.metrics
    return pages.get_template("card.md.jinja").render(
        head=front,
        name=made.name,
        version=__version__,
        form=form,
        rows=rows,
        pictures=pictures,
        task=made.config.get("task") or {},
        about=dict(_about(made)),
        stages=tuple(_stages(made)),
        sources=tuple(_sources(made)),
        funnel=tuple(_funnel(metrics)),
        rates=tuple(_rates(made.samples)),
        graders=sorted({sample.score.grader for sample in made.samples if sample.score}),
        kept_answers=_kept_answers(made),
        variants=_variants(metrics),
        labels=metrics.get("labels"),
        contamination=metrics.get("decontaminate"),
        matched=sum(bool(sample.matches) for sample in made.samples),
        measured=tuple(_measured(metrics)),
        keys=made.keys,
    )


def cell(value: Any) -> str:
    """A value that stays inside its cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def settings(values: Mapping[str, Any]) -> str:
    """`kind: number, tolerance: 0.1`."""
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def head(made: Made, form: str, rows: Mapping[str, int], pictures: int) -> dict[str, Any]:
    """What data hubs read."""
    licence = _licence(made)
    known = licence.lower().replace(" ", "-") if licence else "unknown"
    named = {"license": known} if known in (*LICENCES, "unknown") else {"license": "other", "license_name": known}
    method = "synthrl" if _kept_answers(made) else "synthetic-data-rl"
    total = max(rows.values(), default=0)
    pattern = "data/{}-*.parquet" if form == "hf" else "data/{}.parquet"
    files = [{"split": name, "path": pattern.format(name)} for name in rows]
    return {
        "pretty_name": made.name,
        **named,
        "task_categories": ["visual-question-answering" if pictures else "question-answering"],
        "tags": ["dsrl", "synthetic", method],
        "size_categories": [next((words for most, words in SIZES if total < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _kept_answers(made: Made) -> bool:
    """Whether labelled seeds stand at its beginning."""
    return any(sample.origin == "seed" for sample in made.samples)


def _licence(made: Made) -> str | None:
    """Of the seeds, where there are any: their words are in the rows."""
    gold = (made.config.get("task") or {}).get("gold") or {}
    return gold.get("licence") if _kept_answers(made) else None


def _about(made: Made) -> Iterator[tuple[str, Any]]:
    config = made.config
    yield "task", (config.get("task") or {}).get("name") or (made.samples[0].task if made.samples else None)
    yield "base model", (config.get("model") or {}).get("name")
    teachers = sorted({sample.provenance.teacher for sample in made.samples if sample.provenance.teacher})
    yield "teacher", ", ".join(teachers) or None
    for name, words in SETTINGS:
        yield words, config.get(name)


def _stages(made: Made) -> Iterator[tuple[str, str]]:
    """The pipeline in its order, with the class of each stage."""
    for name, node in (made.config.get("pipeline") or {}).items():
        if isinstance(node, Mapping) and name in made.keys:
            yield name, str(node.get("_target_", ""))


def _sources(made: Made) -> Iterator[tuple[str, str]]:
    """Where words of others come in: seeds, passages; and the set that was kept out."""
    task = made.config.get("task") or {}
    if _kept_answers(made):
        yield "seeds", _source(task.get("gold"))
    if corpora := sorted({passage.source.rpartition("/")[0] for passage in made.passages.values()}):
        yield "passages", ", ".join(corpora)
    if (task.get("test") or {}).get("path"):
        yield "test set (not in these rows)", _source(task["test"])


def _source(source: Mapping[str, Any] | None) -> str:
    """`openai/gsm8k, configuration main, split train, revision e53f, licence MIT`."""
    known = {name: (source or {}).get(name) for name in SOURCES}
    known["path"] = shared_name(str(known["path"]))
    told = [str(value) if name == "path" else f"{name} {value}" for name, value in known.items() if value]
    return ", ".join(told) + ("" if known["licence"] else ", licence not stated")


def shared_name(path: str) -> str:
    """A hub's id as it is; of a local file its name alone: where it lies is nobody's business."""
    return Path(path).name if path.startswith(("/", "~", "./", "../")) else path


def _funnel(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    for stage, rows in (metrics.get("rows") or {}).items():
        if "in" in rows and "out" in rows and not stage.startswith(("train", "evaluate", "compare")):
            told = ", ".join(f"{count} {reason}" for reason, count in (rows.get("rejected") or {}).items())
            yield stage, rows["in"], rows["out"], told


def _rates(samples: Sequence[Sample]) -> Iterator[tuple[str, int, str, str]]:
    """By origin: samples, mean pass rate, and how many are never and always solved."""
    for origin in dict.fromkeys(sample.origin for sample in samples):
        own = [sample for sample in samples if sample.origin == origin]
        values = [one.score.value for one in own if one.score and one.score.value is not None]
        counts = Counter(values)
        mean = f"{fmean(values):.3f}" if values else "not measured"
        yield origin, len(own), mean, f"{counts[0.0]} never, {counts[1.0]} always" if values else ""


def _variants(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = (metrics.get("stages") or {}).get("rewrite") or {}
    return found if found.get("variants") else None


def _measured(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    blocks = metrics.get("evaluate") or {}
    yield from ((role, blocks[role]) for role in ("base", "trained") if role in blocks)
