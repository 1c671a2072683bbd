"""`dsrl ls`, `why`, `trace` and `gc`: the content of the store, without running anything."""

import json
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dsrl.cli.arguments import Arguments, parse
from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.images import ImageStore, content_text
from dsrl.data.sample import Match, Passage, Rejected, Sample
from dsrl.pipeline.store import Entry, Store, damage

DAY = 86400.0


def ls(arguments: list[str]) -> int:
    """`dsrl ls [STAGE] [store=FOLDER]`: the entries of the store, oldest first."""
    given = parse("ls", arguments, options=("store",), max_words=1)
    store = given.store()
    entries = store.entries(_stage(store, given) if given.words else None)
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
    given = parse("why", arguments, options=("store",), max_words=2)
    store = given.store()
    entries = store.entries(_stage(store, given))
    if len(given.words) == 2:
        entries = [entry for entry in entries if entry.manifest.key.startswith(given.words[1])] + entries[-1:]
    if len(entries) < 2:
        print(f"{given.words[0]}: {len(entries)} result in the store, nothing to compare")
        return 0
    before, after = entries[-2], entries[-1]
    print(f"{given.words[0]}  {before.manifest.key} ({age(before.manifest.created)} ago) -> {after.manifest.key}")
    changes = list(reasons(store, before, after))
    print(
        "\n".join(f"  {line}" for line in changes) if changes else "  nothing: the older result was removed or damaged"
    )
    return 0


def reasons(store: Store, before: Entry, after: Entry, path: str = "") -> Iterator[str]:
    """The parts of the key that differ. Changed inputs are followed to the part that changed in their stage."""
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
    """Differing leaves of two JSON-like values; long texts by their first differing line."""
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
    given = parse("trace", arguments, options=("store",), max_words=1)
    if not given.words:
        raise UserError("trace needs a sample", next_step="dsrl trace ID, with an id from the report")
    store = given.store()
    samples, entry = _find_sample(store, given.words[0])
    sample = samples[given.words[0]]
    for line in describe_sample(store, sample, samples, entry):
        print(line)
    return 0


def describe_sample(store: Store, sample: Sample, samples: Mapping[str, Sample], entry: Entry) -> Iterator[str]:
    """The origin and outcome of a sample, in lines."""
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
    """The image files of a sample, in the order of its placeholders."""
    for number, image in enumerate(sample.images, 1):
        path = _images(store).path(image)
        missing = "" if path.is_file() else ", missing"
        yield f"image {number}   {path} ({image.width} x {image.height}{missing})"


def _images(store: Store) -> ImageStore:
    return ImageStore(store.root / "images")


def gc(arguments: list[str]) -> int:
    """`dsrl gc [days=30] [yes=true] [store=FOLDER]`: remove entries that no run used lately, unfinished folders, and
    images that nothing refers to; compact the reply cache."""
    given = parse("gc", arguments, options=("store", "days", "yes"))
    store = given.store()
    limit = time.time() - given.number("days", 30.0) * DAY
    entries = store.entries()
    doomed = [entry for entry in entries if last_used(entry) < limit or damage(entry)]
    kept = [entry.folder for entry in entries if entry not in doomed]
    left = [path for path in store.root.glob("stages/*/.*-*") if path.is_dir()]
    total = sum(_bytes(folder) for folder in [entry.folder for entry in doomed] + left)
    confirmed = given.flag("yes")
    for entry in doomed:
        print(f"{entry.manifest.stage:<13} {entry.manifest.key}  used {age(last_used(entry))} ago")
    if confirmed:
        for folder in [entry.folder for entry in doomed] + left:
            shutil.rmtree(folder)
    print(
        f"{'removed' if confirmed else 'would remove'} {len(doomed)} entries and {len(left)} unfinished folders, "
        f"{total / 1e6:.1f} MB; paid replies are never removed" + ("" if confirmed else "; yes=true does it")
    )
    for line in (*_remove_images(store, kept, limit, confirmed), *_compact_replies(store.root / "calls", confirmed)):
        print(line)
    return 0


def _remove_images(store: Store, kept: list[Path], limit: float, confirmed: bool) -> Iterator[str]:
    """Remove unused images, or report what would be removed."""
    from dsrl.data.images.store import referenced_images, remove_images, unused_images

    pictures = _images(store)
    if not pictures.folder.is_dir():
        return
    doomed = unused_images(pictures, referenced_images(kept), limit)
    size = sum(path.stat().st_size for path in doomed)
    if confirmed:
        remove_images(pictures, doomed)
    yield (
        f"{'removed' if confirmed else 'would remove'} {len(doomed)} images that no kept entry refers to, "
        f"{size / 1e6:.1f} MB"
    )


def _compact_replies(calls: Path, confirmed: bool) -> Iterator[str]:
    """Compact the reply cache, or report what would be done."""
    from dsrl.llm.batch.journal import remove_finished_jobs
    from dsrl.llm.reply_cache.cache import ReplyCache
    from dsrl.llm.reply_cache.compact import compact

    paid = ReplyCache(calls)
    freed = remove_finished_jobs(calls / "batches", paid, confirmed)
    paid.close()
    yield str(compact(calls, confirmed))
    if freed:
        yield f"batches   {freed / 1e6:.1f} MB of batch jobs whose replies are all cached"


def last_used(entry: Entry) -> float:
    """Unix time of the entry's latest use: runs touch the manifest of every entry that they reuse."""
    return (entry.folder / "manifest.json").stat().st_mtime


def age(moment: float) -> str:
    """How long ago: `3 min`, `2 days`."""
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


def _stage(store: Store, arguments: Arguments) -> str:
    """The stage that was named; `evaluate_base` is a pipeline's name for the stage `evaluate`."""
    known = sorted({entry.manifest.stage for entry in store.entries()})
    given = arguments.words[0] if arguments.words else None
    for name in (given, given and given.partition("_")[0]):
        if name in known:
            return str(name)
    raise UserError("a stage is needed" if given is None else "no results of such a stage", got=given, allowed=known)


def _find_sample(store: Store, identifier: str) -> tuple[dict[str, Sample], Entry]:
    """The latest entry that knows the sample, with all its samples."""
    import pyarrow.parquet

    for entry in reversed(store.entries()):
        path = entry.folder / "samples.parquet"
        if path.is_file() and identifier in pyarrow.parquet.ParquetFile(path).read(["id"])["id"].to_pylist():
            return {sample.id: sample for sample in read_table(path, Sample)}, entry
    raise UserError(f"no sample {identifier} in the store", next_step="report.html and samples.parquet list the ids")


def _matches(store: Store, text: str) -> tuple[Match, ...]:
    """Test items that share text with an input, from the latest decontamination."""
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


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(entry: Entry) -> str:
    return f"{_bytes(entry.folder) / 1e6:.2f} MB"
