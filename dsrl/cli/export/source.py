"""What goes out: the samples of a run or of one entry of the store, with all that is known of how they were made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.images import ImageStore
from dsrl.data.sample import Image, Passage, Rejected, Sample
from dsrl.pipeline.store import Entry, Store, damage

if TYPE_CHECKING:
    from dsrl.data.task import Task

PLACES = "a run folder, or a key of `dsrl ls` (or its beginning)"


@dataclass(frozen=True)
class Made:
    """A result, out of the store."""

    name: str
    images: ImageStore
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()
    selected: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    passages: Mapping[str, Passage] = field(default_factory=dict)
    model: Path | None = None
    """Folder of the trained model."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's; empty for an entry by itself."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Stage -> key in the store."""

    @property
    def chosen(self) -> tuple[Sample, ...]:
        """The samples that were selected for training, the most promising first."""
        by_id = {sample.id: sample for sample in self.samples}
        return tuple(by_id[identifier] for identifier in dict.fromkeys(self.selected) if identifier in by_id)

    def task(self) -> "Task":
        """How questions are asked and answers read; demos and data sets, which it takes no part in, are left out.
        Raises `UserError` for an entry by itself, which doesn't know its task."""
        from dsrl.core.plugins import load_plugins
        from dsrl.data.task import Task
        from dsrl.pipeline.config import build

        told = self.config.get("task")
        if not told:
            raise UserError(
                f"{self.name}: how its questions are asked stands in a run's config, and this is an entry of the store",
                next_step="name the folder of a run that used it",
            )
        plugins = tuple(self.config.get("plugins") or ())
        load_plugins(plugins)
        answer = build(told["answer"], "task.answer", plugins)
        words = {name: told.get(name) for name in ("name", "instruction", "output_format")}
        return Task(answer=answer, **words)


def of_run(folder: Path, store: Store) -> Made:
    """What a run made, as far as it came. Raises `UserError` where nothing of it is left."""
    import yaml

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    told = folder / "config.yaml"
    config = yaml.safe_load(told.read_text(encoding="utf-8")) if told.is_file() else {}
    keys = metrics.get("keys") or {}
    known = {entry.manifest.key: entry for entry in store.entries()}
    return _made(
        str(metrics.get("name") or folder.name),
        [known[key] for key in keys.values() if key in known],
        store,
        {"config": config, "metrics": metrics, "keys": keys},
        lost=[stage for stage, key in keys.items() if key not in known],
    )


def of_key(word: str, store: Store) -> Made:
    """What the one entry made whose key begins like this. Raises `UserError` where there is none, or several."""
    entries = store.entries()
    found = [entry for entry in entries if entry.manifest.key.startswith(word)]
    if len(found) != 1:
        raise UserError(
            f"{word}: {'several entries begin like this' if found else 'no such run or entry'}",
            got=f"{len(entries)} entries in {store.root}"
            + "".join(f"\n           {one.manifest.stage} {one.manifest.key}" for one in found[:5]),
            allowed=PLACES,
        )
    manifest = found[0].manifest
    return _made(
        f"{manifest.stage}-{manifest.key[:8]}", found, store, {"keys": {manifest.stage: manifest.key}}, lost=[]
    )


def _made(name: str, entries: Sequence[Entry], store: Store, known: dict[str, Any], lost: Sequence[str]) -> Made:
    for entry in entries:
        if fault := damage(entry):
            raise UserError(
                f"the store entry {entry.folder} is damaged", got=fault, next_step="run again to make it anew"
            )
    samples: tuple[Sample, ...] = _latest(entries, "samples.parquet", Sample)
    chosen = _values(entries, "selected")
    trained = _values(entries, "trained")
    made = Made(
        name=name,
        images=ImageStore(store.root / "images"),
        samples=samples,
        rejected=tuple(row for entry in entries for row in _rows(entry, "rejected.parquet", Rejected)),
        selected=tuple(chosen[1]["selected"]) if chosen else (),
        control=tuple(chosen[1].get("control", ())) if chosen else (),
        passages={passage.id: passage for passage in _latest(entries, "passages.parquet", Passage)},
        model=trained[0].folder / trained[1]["trained"]["path"] if trained else None,
        **known,
    )
    if not made.samples and made.model is None:
        raise UserError(
            f"{name}: there are no samples to export",
            got=f"stages {', '.join(entry.manifest.stage for entry in entries) or 'none'}"
            + (f"; no longer in {store.root}: {', '.join(lost)}" if lost else ""),
            next_step="name a run that wrote some; `dsrl ls` lists the entries of the store",
        )
    return made


def _latest(entries: Sequence[Entry], name: str, cls: type) -> tuple[Any, ...]:
    """The rows of the last stage that wrote such a table."""
    found = [entry for entry in entries if (entry.folder / name).is_file()]
    return _rows(found[-1], name, cls) if found else ()


def _rows(entry: Entry, name: str, cls: type) -> tuple[Any, ...]:
    path = entry.folder / name
    return read_table(path, cls) if path.is_file() else ()


def _values(entries: Sequence[Entry], name: str) -> tuple[Entry, dict[str, Any]] | None:
    """The last stage that filled this in, and what it wrote."""
    for entry in reversed(entries):
        path = entry.folder / "values.json"
        values = json.loads(path.read_bytes()) if path.is_file() else {}
        if values.get(name) is not None:
            return entry, values
    return None


def check_pictures(images: ImageStore, rows: Sequence[Sample | Rejected]) -> None:
    """Raises `UserError` where pictures of these rows are gone."""
    wanted = {image.path: image for image in _pictures(rows)}
    lost = [image for image in wanted.values() if not images.path(image).is_file()]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(wanted)} pictures are no longer in the store",
            got=f"no file {images.path(lost[0])}",
            next_step="put the folder `images` of the store back; or make them anew: remove the entry of the stage "
            "`seeds` (`dsrl ls seeds`) and run again, replies that are paid for are not paid again",
        )


def _pictures(rows: Sequence[Sample | Rejected]) -> Iterator[Image]:
    return (image for row in rows for image in row.images)
