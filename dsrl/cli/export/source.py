"""What an export contains: the samples of a run or of one store entry, with everything known about their origin."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.images import ImageStore
from dsrl.data.sample import Passage, Rejected, Sample
from dsrl.pipeline.store import Entry, Store, damage

if TYPE_CHECKING:
    from dsrl.data.task import Task

PLACES = "a run folder, or a key of `dsrl ls` (or its beginning)"


@dataclass(frozen=True)
class ExportSource:
    """A result from the store."""

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
    """Config of the run; empty for a single entry."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Stage -> key in the store."""

    @property
    def selected_samples(self) -> tuple[Sample, ...]:
        """The samples selected for training, in their order of selection."""
        by_id = {sample.id: sample for sample in self.samples}
        return tuple(by_id[identifier] for identifier in dict.fromkeys(self.selected) if identifier in by_id)

    def task(self) -> "Task":
        """How questions are asked and answers read, without demos and data sets. Raises `UserError` for a single entry,
        which doesn't know its task."""
        from dsrl.core.plugins import load_plugins
        from dsrl.data.task import Task
        from dsrl.pipeline.config import build

        values = self.config.get("task")
        if not values:
            raise UserError(
                f"{self.name}: a store entry doesn't know its task, but a run does",
                next_step="name the folder of a run that used it",
            )
        plugins = tuple(self.config.get("plugins") or ())
        load_plugins(plugins)
        answer = build(values["answer"], "task.answer", plugins)
        texts = {name: values.get(name) for name in ("name", "instruction", "output_format")}
        return Task(answer=answer, **texts)


def source_of_run(folder: Path, store: Store) -> ExportSource:
    """What a run made so far. Raises `UserError` if nothing of it is left in the store."""
    import yaml

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config_file = folder / "config.yaml"
    config = yaml.safe_load(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    keys = metrics.get("keys") or {}
    known = {entry.manifest.key: entry for entry in store.entries()}
    return _collect(
        str(metrics.get("name") or folder.name),
        [known[key] for key in keys.values() if key in known],
        store,
        {"config": config, "metrics": metrics, "keys": keys},
        lost=[stage for stage, key in keys.items() if key not in known],
    )


def source_of_key(word: str, store: Store) -> ExportSource:
    """The one store entry whose key begins with `word`. Raises `UserError` if there is none, or several."""
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
    return _collect(
        f"{manifest.stage}-{manifest.key[:8]}", found, store, {"keys": {manifest.stage: manifest.key}}, lost=[]
    )


def _collect(
    name: str, entries: Sequence[Entry], store: Store, known: dict[str, Any], lost: Sequence[str]
) -> ExportSource:
    for entry in entries:
        if fault := damage(entry):
            raise UserError(
                f"the store entry {entry.folder} is damaged", got=fault, next_step="run again to make it anew"
            )
    samples: tuple[Sample, ...] = _latest(entries, "samples.parquet", Sample)
    selection = _values(entries, "selected")
    trained = _values(entries, "trained")
    source = ExportSource(
        name=name,
        images=ImageStore(store.root / "images"),
        samples=samples,
        rejected=tuple(row for entry in entries for row in _rows(entry, "rejected.parquet", Rejected)),
        selected=tuple(selection[1]["selected"]) if selection else (),
        control=tuple(selection[1].get("control", ())) if selection else (),
        passages={passage.id: passage for passage in _latest(entries, "passages.parquet", Passage)},
        model=trained[0].folder / trained[1]["trained"]["path"] if trained else None,
        **known,
    )
    if not source.samples and source.model is None:
        raise UserError(
            f"{name}: there are no samples to export",
            got=f"stages {', '.join(entry.manifest.stage for entry in entries) or 'none'}"
            + (f"; no longer in {store.root}: {', '.join(lost)}" if lost else ""),
            next_step="name a run that wrote some; `dsrl ls` lists the entries of the store",
        )
    return source


def _latest(entries: Sequence[Entry], name: str, cls: type) -> tuple[Any, ...]:
    """The rows of the last stage that wrote this table."""
    found = [entry for entry in entries if (entry.folder / name).is_file()]
    return _rows(found[-1], name, cls) if found else ()


def _rows(entry: Entry, name: str, cls: type) -> tuple[Any, ...]:
    path = entry.folder / name
    return read_table(path, cls) if path.is_file() else ()


def _values(entries: Sequence[Entry], name: str) -> tuple[Entry, dict[str, Any]] | None:
    """The last stage that wrote this value, and all values that it wrote."""
    for entry in reversed(entries):
        path = entry.folder / "values.json"
        values = json.loads(path.read_bytes()) if path.is_file() else {}
        if values.get(name) is not None:
            return entry, values
    return None


def check_images(images: ImageStore, rows: Sequence[Sample | Rejected]) -> None:
    """Raise `UserError` if images of these rows are no longer in the store."""
    wanted = {image.path: image for row in rows for image in row.images}
    lost = [image for image in wanted.values() if not images.path(image).is_file()]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(wanted)} images are no longer in the store",
            got=f"no file {images.path(lost[0])}",
            next_step="restore the folder `images` of the store; or remove the entry of the stage `seeds` "
            "(`dsrl ls seeds`) and run again: cached replies are not paid again",
        )
