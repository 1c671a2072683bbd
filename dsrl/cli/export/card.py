"""The data card: what the rows are, where they come from and how they were made."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dsrl import __version__
from dsrl.cli.export.source import ExportSource
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
"""Licence identifiers of the Hugging Face hub that occur here; others are written as `other` with a name."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SOURCES = ("path", "config", "split", "revision", "licence")
SETTINGS = (
    ("n", "samples asked of the teacher"),
    ("votes", "answers a label"),
    ("rollouts", "replies a pass rate"),
    ("seed", "seed of the data"),
)
"""Settings that the card shows, with their descriptions."""


def card(source: ExportSource, form: str, rows: Mapping[str, int], pictures: int) -> str:
    """The card as Markdown with a YAML header."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    pages.filters.update(cell=cell, settings=settings)
    front = yaml.safe_dump(header(source, form, rows, pictures), sort_keys=False, allow_unicode=True)
    metrics = source.metrics
    return pages.get_template("card.md.jinja").render(
        head=front,
        name=source.name,
        version=__version__,
        form=form,
        rows=rows,
        pictures=pictures,
        task=source.config.get("task") or {},
        about=dict(_about(source)),
        stages=tuple(_stages(source)),
        sources=tuple(_sources(source)),
        funnel=tuple(_funnel(metrics)),
        rates=tuple(_rates(source.samples)),
        graders=sorted({sample.score.grader for sample in source.samples if sample.score}),
        kept_answers=_kept_answers(source),
        variants=_variants(metrics),
        labels=metrics.get("labels"),
        contamination=metrics.get("decontaminate"),
        matched=sum(bool(sample.matches) for sample in source.samples),
        measured=tuple(_measured(metrics)),
        keys=source.keys,
    )


def cell(value: Any) -> str:
    """A value that fits into one cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def settings(values: Mapping[str, Any]) -> str:
    """`kind: number, tolerance: 0.1`."""
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def header(source: ExportSource, form: str, rows: Mapping[str, int], pictures: int) -> dict[str, Any]:
    """The YAML header that the hub reads."""
    licence = _licence(source)
    known = licence.lower().replace(" ", "-") if licence else "unknown"
    named = {"license": known} if known in (*LICENCES, "unknown") else {"license": "other", "license_name": known}
    method = "synthrl" if _kept_answers(source) else "synthetic-data-rl"
    total = max(rows.values(), default=0)
    pattern = "data/{}-*.parquet" if form == "hf" else "data/{}.parquet"
    files = [{"split": name, "path": pattern.format(name)} for name in rows]
    return {
        "pretty_name": source.name,
        **named,
        "task_categories": ["visual-question-answering" if pictures else "question-answering"],
        "tags": ["dsrl", "synthetic", method],
        "size_categories": [next((words for most, words in SIZES if total < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _kept_answers(source: ExportSource) -> bool:
    """Whether the samples started from labelled seeds (SynthRL)."""
    return any(sample.origin == "seed" for sample in source.samples)


def _licence(source: ExportSource) -> str | None:
    """The licence of the seeds, whose text is in the rows; None without seeds."""
    gold = (source.config.get("task") or {}).get("gold") or {}
    return gold.get("licence") if _kept_answers(source) else None


def _about(source: ExportSource) -> Iterator[tuple[str, Any]]:
    config = source.config
    yield "task", (config.get("task") or {}).get("name") or (source.samples[0].task if source.samples else None)
    yield "base model", (config.get("model") or {}).get("name")
    teachers = sorted({sample.provenance.teacher for sample in source.samples if sample.provenance.teacher})
    yield "teacher", ", ".join(teachers) or None
    for name, words in SETTINGS:
        yield words, config.get(name)


def _stages(source: ExportSource) -> Iterator[tuple[str, str]]:
    """Stages in pipeline order, with their classes."""
    for name, node in (source.config.get("pipeline") or {}).items():
        if isinstance(node, Mapping) and name in source.keys:
            yield name, str(node.get("_target_", ""))


def _sources(source: ExportSource) -> Iterator[tuple[str, str]]:
    """Sources of text: seeds, passages; and the test set that was excluded."""
    task = source.config.get("task") or {}
    if _kept_answers(source):
        yield "seeds", _source(task.get("gold"))
    if corpora := sorted({passage.source.rpartition("/")[0] for passage in source.passages.values()}):
        yield "passages", ", ".join(corpora)
    if (task.get("test") or {}).get("path"):
        yield "test set (not in these rows)", _source(task["test"])


def _source(source: Mapping[str, Any] | None) -> str:
    """`openai/gsm8k, configuration main, split train, revision e53f, licence MIT`."""
    known = {name: (source or {}).get(name) for name in SOURCES}
    known["path"] = shared_name(str(known["path"]))
    parts = [str(value) if name == "path" else f"{name} {value}" for name, value in known.items() if value]
    return ", ".join(parts) + ("" if known["licence"] else ", licence not stated")


def shared_name(path: str) -> str:
    """A hub id unchanged; only the name of a local file, because its path is private."""
    return Path(path).name if path.startswith(("/", "~", "./", "../")) else path


def _funnel(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    for stage, rows in (metrics.get("rows") or {}).items():
        if "in" in rows and "out" in rows and not stage.startswith(("train", "evaluate", "compare")):
            reasons = ", ".join(f"{count} {reason}" for reason, count in (rows.get("rejected") or {}).items())
            yield stage, rows["in"], rows["out"], reasons


def _rates(samples: Sequence[Sample]) -> Iterator[tuple[str, int, str, str]]:
    """For each origin: number of samples, mean pass rate, and how many are never and always solved."""
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
