"""`dsrl ls`, `why`, `trace` and `gc`: looking at what was made, without running anything."""

import json
import os
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.images import ImageStore, content_text
from dsrl.data.sample import Match, Passage, Rejected, Sample
from dsrl.pipeline.store import Entry, Store, damage

DAY = 86400.0


def ls(arguments: list[str]) -> int:
    """`dsrl ls [STAGE] [store=FOLDER]`: the entries of the store, oldest first."""
    words, options = _split(arguments, most=1)
    store = _store(options)
    entries = store.entries(_stage(store, words) if words else None)
    if not entries:
        print("the store is empty")
    for entry in entries:
        manifest = entry.manifest
        rows = manifest.rows
        flow = f"{rows['in']} -> {rows['out']}" if "in" in rows and "out" in rows else ""
        calls = sum(role.get("requests", 0) for role in manifest.calls.values())
        print(
            f"{manifest.stage:<13} {manifest.key}  {age(manifest.created):>8} ago  {_size(entry):>9}  "
            f"{flow:>14}  {manifest.seconds:>7.1f} s" + (f"  {calls} requests" if calls else "")
        )
    return 0


def why(arguments: list[str]) -> int:
    """`dsrl why STAGE [store=FOLDER]`: what changed between the latest two results of a stage."""
    words, options = _split(arguments, most=2)
    store = _store(options)
    entries = store.entries(_stage(store, words))
    if len(words) == 2:
        entries = [entry for entry in entries if entry.manifest.key.startswith(words[1])] + entries[-1:]
    if len(entries) < 2:
        print(f"{words[0]}: {len(entries)} result in the store, nothing to compare")
        return 0
    before, after = entries[-2], entries[-1]
    print(f"{words[0]}  {before.manifest.key} ({age(before.manifest.created)} ago) -> {after.manifest.key}")
    changes = list(reasons(store, before, after))
    print("\n".join(f"  {line}" for line in changes) if changes else "  nothing: the older result was gone or damaged")
    return 0


def reasons(store: Store, before: Entry, after: Entry, path: str = "") -> Iterator[str]:
    """The parts of the key that differ; a stage it builds upon is followed to the part that changed there."""
    yield from differences(before.manifest.parts, after.manifest.parts, path)
    for need, key in after.manifest.parents.items():
        old = before.manifest.parents.get(need)
        if old == key:
            continue
        makers = {
            known: entry
            for entry in store.entries()
            for known in (entry.manifest.key, *entry.manifest.contents.values())
        }
        if old in makers and key in makers:
            yield from reasons(store, makers[old], makers[key], f"{path}{need} <- {makers[key].manifest.stage}: ")
        else:
            yield f"{path}{need}: {old} -> {key}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Leaves of two JSON-like values that are not the same; long texts by their first differing line."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            yield from differences(before.get(name), after.get(name), f"{path}{name}." if path else f"{name}.")
    elif before != after:
        name = path.rstrip(".")
        if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
            pairs = zip([*before.splitlines(), ""], [*after.splitlines(), ""], strict=False)
            old, new = next(((a, b) for a, b in pairs if a != b), ("", ""))
            yield f"{name}: text changed\n    - {old}\n    + {new}"
        else:
            yield f"{name}: {before!r} -> {after!r}"


def trace(arguments: list[str]) -> int:
    """`dsrl trace SAMPLE [store=FOLDER]`: where a sample came from, with prompts and raw replies."""
    words, options = _split(arguments, most=1)
    if not words:
        raise UserError("trace: which sample?", next_step="dsrl trace ID, with an id out of the report")
    store = _store(options)
    samples, entry = _find_sample(store, words[0])
    sample = samples[words[0]]
    for line in story(store, sample, samples, entry):
        print(line)
    return 0


def story(store: Store, sample: Sample, samples: Mapping[str, Sample], entry: Entry) -> Iterator[str]:
    """A sample's life in lines."""
    origin = sample.provenance
    yield f"{sample.id}  {sample.origin}, generation {sample.generation}, known from {entry.manifest.stage}"
    yield f"input     {sample.input}"
    yield from _pictures(store, sample)
    yield f"answer    {sample.answer}"
    if sample.votes:
        votes = sample.votes
        bound = " or more" if votes.censored else ""
        yield f"votes     {votes.counts}, {votes.unparsable} unparsable; share {votes.share:.2f}{bound}"
    for name, rate in (("probe", sample.probe), ("pass rate", sample.score)):
        if rate:
            yield f"{name:<9} {rate.num_correct} of {rate.num_valid} right, {rate.num_error} missing"
    for match in _matches(store, sample.input):
        yield f"shares    with item {match.item} of {match.source} ({match.kind}, {match.share:.2f}): {match.text}"
    if origin.passage and (passage := _passage(store, origin.passage)):
        yield f"passage   {passage.source} at character {passage.offset}, by keyword {passage.keyword!r}"
        yield textwrap.indent(textwrap.fill(passage.text, 100), "          ")
    if sample.parent_id:
        yield f"parent    {sample.parent_id}: {samples[sample.parent_id].input if sample.parent_id in samples else '?'}"
    for child in samples.values():
        if child.parent_id == sample.id:
            yield f"child     {child.id} ({child.origin}): {child.input}"
    for selection in store.entries("select"):
        chosen = json.loads((selection.folder / "values.json").read_text(encoding="utf-8"))
        for kind in ("selected", "control"):
            if sample.id in chosen[kind]:
                place = chosen[kind].index(sample.id) + 1
                yield f"{kind:<9} number {place} of {len(chosen[kind])} in {selection.manifest.key}"
    yield from _replies(store, origin.calls)


def _pictures(store: Store, sample: Sample) -> Iterator[str]:
    """Where the pictures of a sample are, in the order of its placeholders."""
    for number, image in enumerate(sample.images, 1):
        path = _images(store).path(image)
        lost = "" if path.is_file() else ", no longer there"
        yield f"image {number}   {path} ({image.width} x {image.height}{lost})"


def _images(store: Store) -> ImageStore:
    return ImageStore(store.root / "images")


def gc(arguments: list[str]) -> int:
    """`dsrl gc [days=30] [yes=true] [store=FOLDER]`: remove what no run used lately, half-made folders, and pictures
    that nothing refers to then; shrink the calls store."""
    _, options = _split(arguments, most=0)
    store = _store(options)
    limit = time.time() - _number(options, "days", 30.0) * DAY
    entries = store.entries()
    doomed = [entry for entry in entries if last_used(entry) < limit or damage(entry)]
    kept = [entry.folder for entry in entries if entry not in doomed]
    left = [path for path in store.root.glob("stages/*/.*-*") if path.is_dir()]
    total = sum(_bytes(folder) for folder in [entry.folder for entry in doomed] + left)
    sure = _flag(options, "yes")
    for entry in doomed:
        print(f"{entry.manifest.stage:<13} {entry.manifest.key}  used {age(last_used(entry))} ago")
    if sure:
        for folder in [entry.folder for entry in doomed] + left:
            shutil.rmtree(folder)
    print(
        f"{'removed' if sure else 'would remove'} {len(doomed)} entries and {len(left)} unfinished folders, "
        f"{total / 1e6:.1f} MB; paid replies are never removed" + ("" if sure else "; do it with yes=true")
    )
    for line in (*_swept(store, kept, limit, sure), *_shrunk(store.root / "calls", sure)):
        print(line)
    return 0


def _swept(store: Store, kept: list[Path], limit: float, sure: bool) -> Iterator[str]:
    """What is done to the pictures, or would be."""
    from dsrl.data.images.store import referenced_images, remove_images, unused_images

    pictures = _images(store)
    if not pictures.folder.is_dir():
        return
    doomed = unused_images(pictures, referenced_images(kept), limit)
    size = sum(path.stat().st_size for path in doomed)
    if sure:
        remove_images(pictures, doomed)
    yield (
        f"{'removed' if sure else 'would remove'} {len(doomed)} pictures that no kept entry refers to, "
        f"{size / 1e6:.1f} MB"
    )


def _shrunk(calls: Path, sure: bool) -> Iterator[str]:
    """What is done to the calls store, or would be."""
    from dsrl.llm.batch.journal import remove_finished_jobs
    from dsrl.llm.reply_cache.cache import ReplyCache
    from dsrl.llm.reply_cache.compact import compact

    paid = ReplyCache(calls)
    freed = remove_finished_jobs(calls / "batches", paid, sure)
    paid.close()
    yield str(compact(calls, sure))
    if freed:
        yield f"batches   {freed / 1e6:.1f} MB of jobs whose replies are all stored"


def last_used(entry: Entry) -> float:
    """Unix time of the entry's latest use: a run touches the manifest of what it takes out of the store."""
    return (entry.folder / "manifest.json").stat().st_mtime


def age(moment: float) -> str:
    """How long ago, for a person: `3 min`, `2 days`."""
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _replies(store: Store, calls: tuple[str, ...]) -> Iterator[str]:
    """Prompt and raw replies of every paid call."""
    from dsrl.llm.reply_cache.cache import ReplyCache

    paid = ReplyCache(store.root / "calls")
    shown: set[str] = set()
    for call in calls:
        request_digest, _, index = call.partition(":")
        request = paid.request(request_digest)
        if request_digest not in shown and request:
            shown.add(request_digest)
            for message in request["messages"]:
                yield f"\n--- {message['role']} ({request_digest})\n{content_text(message['content'])}"
        reply = paid.get(request_digest, int(index))
        yield f"--- reply {index}\n{reply.text if reply else '(not in this store)'}"


def _stage(store: Store, words: list[str]) -> str:
    """The stage that is asked for; `evaluate_base` is the pipeline's name for an `evaluate`."""
    known = sorted({entry.manifest.stage for entry in store.entries()})
    given = words[0] if words else None
    for name in (given, given and given.partition("_")[0]):
        if name in known:
            return str(name)
    raise UserError("which stage?" if given is None else "no results of such a stage", got=given, allowed=known)


def _find_sample(store: Store, identifier: str) -> tuple[dict[str, Sample], Entry]:
    """The latest entry that knows the sample, with all its samples."""
    import pyarrow.parquet

    for entry in reversed(store.entries()):
        path = entry.folder / "samples.parquet"
        if path.is_file() and identifier in pyarrow.parquet.ParquetFile(path).read(["id"])["id"].to_pylist():
            return {sample.id: sample for sample in read_table(path, Sample)}, entry
    raise UserError(f"no sample {identifier} in the store", next_step="ids stand in report.html and samples.parquet")


def _matches(store: Store, text: str) -> tuple[Match, ...]:
    """Test items that an input gives away, whether its sample was kept or taken out, as the latest look found them."""
    for entry in reversed(store.entries("decontaminate")):
        found = {row.input: row.matches for row in read_table(entry.folder / "samples.parquet", Sample)}
        found |= {row.input or "": row.matches for row in read_table(entry.folder / "rejected.parquet", Rejected)}
        if text in found:
            return found[text]
    return ()


def _passage(store: Store, identifier: str) -> Passage | None:
    for entry in reversed(store.entries("retrieve")):
        for passage in read_table(entry.folder / "passages.parquet", Passage):
            if passage.id == identifier:
                return passage
    return None


def _split(arguments: list[str], most: int) -> tuple[list[str], dict[str, str]]:
    words = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if len(words) > most:
        raise UserError("too many words", got=" ".join(words), next_step="dsrl --help")
    unknown = sorted(set(options) - {"store", "days", "yes"})
    if unknown:
        raise UserError(f"{unknown[0]}: unknown option", allowed="store=FOLDER, days=NUMBER, yes=true")
    return words, options


def _store(options: Mapping[str, str]) -> Store:
    root = Path(options.get("store", os.environ.get("DSRL_STORE", "store"))).expanduser().absolute()
    if not (root / "stages").is_dir():
        raise UserError(f"no store at {root}", next_step="give store=FOLDER, or run something first")
    return Store(root)


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError as error:
        raise UserError(f"{name}: not a number", got=options[name]) from error


def _flag(options: Mapping[str, str], name: str) -> bool:
    given = options.get(name, "false").lower()
    if given not in ("true", "false"):
        raise UserError(f"{name}: neither yes nor no", got=options[name], allowed=("true", "false"))
    return given == "true"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(entry: Entry) -> str:
    return f"{_bytes(entry.folder) / 1e6:.2f} MB"
