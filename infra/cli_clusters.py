"""`gristmill clusters`: what a dedup step took for the same, shown. Registered by `infra.cli`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from infra.options import Json, Out
from infra.terminal import data, from_here, table, visible

if TYPE_CHECKING:
    from infra.clusters import Cluster, Loss, Member, Summary
    from infra.word_diff import Stretch

FORMAT = 1
"""Of what --json prints."""
SIZES = (1, 2, 3, 4, 5, 10, 100, 1_000)
"""The least size of each line of the histograms."""
LEAST_WIDTH = 80
CONTEXT, FOLDED = 10, 20
"""Equal words that are shown beside a difference; how many more there must be to be folded."""
IN_STEP = 6
"""Equal words after which both columns begin a new line together."""
SHOWN, SHOWN_OF_ONE = 300, 60
"""Words of a column that are shown; of one difference."""
SHOWN_OF_WORD = 120
"""Characters of a word."""
UNLIKE = {
    "url": "one address",
    "text": "equal but for case and white space",
    "twin": "equal signatures: alike but for case, numbers, punctuation",
}

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many clusters.")]
Least = Annotated[int, typer.Option("--least", min=2, help="Only clusters of so many documents or more.")]
Members = Annotated[
    int, typer.Option("--members", min=1, help="Removed documents of each to compare, least similar first.")
]
Wanted = Annotated[
    str | None, typer.Option("--id", help="The whole cluster of the document with this id or URL.", show_default=False)
]
Diff = Annotated[bool, typer.Option("--diff/--no-diff", help="Beside the kept text, one removed one.")]


def clusters(
    out: Out,
    count: Count = 10,
    least: Least = 2,
    members: Members = 3,
    wanted: Wanted = None,
    diff: Diff = True,
    as_json: Json = False,
) -> None:
    """What dedup took for the same: sizes, who lost most, and the largest clusters with their texts side by side."""
    from infra.clusters import clusters as found_clusters
    from infra.clusters import summary
    from infra.run import read_run
    from infra.store import open_store

    made = read_run(open_store(out))
    counted = summary(made)
    found = found_clusters(made, count=count, least=least, members=members, wanted=wanted, diff=diff)
    if as_json:
        data({"format": FORMAT, "summary": summary_json(counted), "clusters": [cluster_json(one) for one in found]})
        return
    if wanted is None:
        show_summary(counted)
    cut_short = False
    for one in found:
        show_cluster(one)
        cut_short |= one.size > len(one.members) + 1
    if cut_short and wanted is None:
        print(f"\nnext      gristmill clusters {from_here(made.store.url)} --id ID   every document of one cluster")


def show_summary(found: Summary) -> None:
    """Print how much fell by what, how large clusters and buckets are, what was compared, and who lost most."""
    gone = sum(found.removed.values())
    rows: list[tuple[str, int, str]] = [("before", found.documents, ""), ("removed", gone, "")]
    rows += [(f"  by {name}", count, method_said(name, found)) for name, count in found.removed.items()]
    rows.append(("kept", found.documents - gone, ""))
    rows.append(("  with copies", sum(found.clusters.values()), "one for each cluster"))
    cells = [(name, count, share(count, found.documents), said) for name, count, said in rows]
    table([("documents", "left"), ("", "right"), ("", "right"), ("", "left")], cells)
    if found.clusters or any(size > 1 for size in found.buckets):
        print()
        show_sizes(found)
    print()
    for line in pairs_said(found):
        print(line)
    show_losses([("domain", one) for one in found.domains] + [("folder", one) for one in found.folders])


def share(part: int, whole: int) -> str:
    """A share in per cent."""
    return f"{part / whole:.2%}" if whole else "-"


def method_said(method: str, found: Summary) -> str:
    """What a method takes for the same."""
    near = found.step.minhash
    if method != "minhash" or near is None:
        return UNLIKE.get(method, "")
    if near.threshold is None:
        return f"joined by buckets of {near.rows} equal minima, unverified"
    return f"similarity estimated at {near.threshold} or more"


def show_sizes(found: Summary) -> None:
    """Print how many clusters and buckets there are of each size."""
    near = found.step.minhash
    counted = near is not None and bool(found.buckets)
    columns = [binned(found.clusters), *([binned(found.buckets)] if counted else [])]
    rows = [
        (name, *(column.get(name, 0) if name != "1" or column is not columns[0] else "" for column in columns))
        for name in binned(dict.fromkeys(SIZES, 1))
        if any(name in column for column in columns)
    ]
    rows.append(("largest", *(max(sizes, default=0) for sizes in (found.clusters, found.buckets)[: len(columns)])))
    titles = ["documents", "clusters", "buckets"][: 1 + len(columns)]
    table([(title, "right") for title in titles], rows)


def binned(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by size added up for each line of a histogram: `4`, `5-9`, `1,000+`."""
    found: dict[str, int] = {}
    for low, above in zip(SIZES, (*SIZES[1:], None), strict=True):
        name = f"{low:,}+" if above is None else str(low) if above == low + 1 else f"{low:,}-{above - 1:,}"
        inside = [count for size, count in counts.items() if size >= low and (above is None or size < above)]
        if inside:
            found[name] = sum(inside)
    return found


def pairs_said(found: Summary) -> Iterator[str]:
    """What was compared, how well, and what the cap left out."""
    near = found.step.minhash
    if near is None:
        yield "near-duplicates were not looked for: the step has no minhash"
        return
    if found.compared is None or found.verified is None or near.threshold is None:
        yield "pairs of a bucket were not compared: candidates count as they are (threshold: null)"
    else:
        from pipelines.dedup.sketch import standard_error

        size = near.parameters.size
        error = float(standard_error(near.threshold, size))
        yield (
            f"{found.compared:,} pairs compared, {found.verified:,} of them similar enough\n"
            f"(estimated from {size} minima: standard error {error:.3f} at {near.threshold})"
        )
    if found.left_out:
        yield (
            f"{found.left_out:,} pairs of large buckets left out: there a document meets the {near.bucket_cap:,}\n"
            "preferred ones alone. One that resembles none of these is kept, unless another\n"
            "bucket joins it with what it does resemble (bucket_cap)"
        )


def show_losses(found: Sequence[tuple[str, Loss]]) -> None:
    """Print the domains and folders that lost most."""
    if not found:
        return
    print()
    rows = [
        (visible(one.name) or "(none)", kind, one.documents, one.removed, share(one.removed, one.documents))
        for kind, one in found
    ]
    table([("source", "left"), ("", "left"), ("documents", "right"), ("removed", "right"), ("", "right")], rows)


def show_cluster(one: Cluster) -> None:
    """Print a cluster: its kept document, removed ones with both similarities, and where one of them differs."""
    console = wide_console()
    console.print()
    console.rule(f"{one.size:,} documents, rehydration weight {one.weight}", style="dim", align="left")
    where = "" if one.run is None else f"in the earlier run {one.run}  "
    show_named(console, "kept", one.id, f"{where}{one.url}".rstrip())
    for member in one.members:
        show_named(console, member.method, member.id, f"{similarities(member)}  {member.url}".rstrip())
    if more := one.size - 1 - len(one.members):
        console.print(Text(f"{more:,} more removed", style="dim"))
    for member in one.members:
        if member.diff is not None:
            show_diff(console, member.diff, one.id, member.id)


def wide_console() -> Console:
    """A console of 80 columns at least."""
    console = Console(highlight=False)
    return Console(highlight=False, width=max(LEAST_WIDTH, console.width))


def show_named(console: Console, name: str, document: str, said: str) -> None:
    """Print one document of a cluster, and below it what there is to say."""
    console.print(Text(f"{name:<9} {visible(document)}"), soft_wrap=True)
    if said:
        console.print(Text(f"{'':<9} {visible(said)}"), soft_wrap=True)


def similarities(member: Member) -> str:
    """Both similarities, as far as they are known."""
    said = "not compared" if member.similarity is None else f"estimated {member.similarity:.3f}"
    if member.compared:
        said += f", exact {'none' if member.exact is None else f'{member.exact:.3f}'}"
    alike = member.method in ("text", "twin") and member.similarity != 1
    return f"{said}, by way of a removed document" if alike else said


def show_diff(console: Console, found: Sequence[Stretch], kept: str, removed: str) -> None:
    """Print two texts in two columns: what differs marked, what is equal folded. White space is not shown."""
    width = (console.width - 3) // 2
    marked = console.color_system is None or console.no_color
    heads = (Text(f"kept: {visible(kept)}", style="bold"), Text(f"removed: {visible(removed)}", style="bold"))
    console.print(Text(f"\n{differing_said(found)}", style="dim"))
    for row in [heads, *diff_rows(found, marked=marked)]:
        if isinstance(row, str):
            console.print(Text(f"   … {row} …", style="dim"))
            continue
        lines = (side.wrap(console, width) for side in row)
        for left, right in zip_longest(*lines, fillvalue=Text()):
            left = left.copy()
            left.align("left", width)
            console.print(Text.assemble(left, (" │ ", "dim"), right), no_wrap=True, crop=True)


def differing_said(found: Sequence[Stretch]) -> str:
    """How many words of either text the other lacks."""
    changed = [one for one in found if one.kind == "changed"]
    lacking = sum(len(one.first) for one in changed), sum(len(one.second) for one in changed)
    whole = (sum(len(one.first) for one in found), sum(len(one.second) for one in found))
    return (
        f"differing words: {lacking[0]:,} of {whole[0]:,} in the kept text, {lacking[1]:,} of {whole[1]:,} in the "
        "removed"
    )


def diff_rows(found: Sequence[Stretch], *, marked: bool) -> Iterator[tuple[Text, Text] | str]:
    """The rows of a side-by-side diff, a text for each column, and between them what is said of what is left out."""
    row: tuple[Text, Text] | None = None
    for part in diff_parts(found, marked=marked):
        if row is not None and (isinstance(part, str) or part.in_step):
            yield row
            row = None
        if isinstance(part, str):
            yield part
            continue
        row = (Text(), Text()) if row is None else row
        for side, text in zip(row, (part.kept, part.removed), strict=True):
            side.append_text(text)
    if row is not None:
        yield row


@dataclass(frozen=True, kw_only=True)
class Part:
    """Text for both columns; `in_step` where it begins a new line in both."""

    kept: Text
    removed: Text
    in_step: bool = False


def diff_parts(found: Sequence[Stretch], *, marked: bool) -> Iterator[Part | str]:
    """The stretches as they are shown, as many as are, and what is said of the others."""
    shown = 0
    for at, one in enumerate(found):
        left = [max(len(other.first), len(other.second)) for other in found[at:] if other.kind == "changed"]
        if shown > SHOWN and left:
            yield f"{len(left):,} more differences, {sum(left):,} words"
            return
        if one.kind == "uncompared":
            sizes = [sum(map(len, words)) for words in (one.first, one.second)]
            yield f"{sizes[0]:,} and {sizes[1]:,} characters that are not compared"
        elif one.kind == "changed":
            yield Part(
                kept=changed_text(one.first, "bold red", ("[-", "-]") if marked else ("", "")),
                removed=changed_text(one.second, "bold green", ("{+", "+}") if marked else ("", "")),
            )
            shown += min(SHOWN_OF_ONE, max(len(one.first), len(one.second)))
        else:
            yield from equal_parts(one, CONTEXT * (at > 0), CONTEXT * (at < len(found) - 1))
            shown += min(len(one.first), 2 * CONTEXT + FOLDED)


def equal_parts(one: Stretch, before: int, after: int) -> Iterator[Part | str]:
    """An equal stretch, whole or so many words at either end and how many are folded between them."""
    whole = len(one.first)
    if whole - before - after <= FOLDED and before + after:
        yield Part(kept=plain_text(one.first), removed=plain_text(one.second), in_step=whole >= IN_STEP)
        return
    if before:
        yield Part(kept=plain_text(one.first[:before]), removed=plain_text(one.second[:before]))
    yield f"{whole - before - after:,} equal words"
    if after:
        yield Part(kept=plain_text(one.first[-after:]), removed=plain_text(one.second[-after:]))


def plain_text(words: Sequence[str]) -> Text:
    """Words that are equal in both texts."""
    return Text("".join(map(shown_word, words)))


def changed_text(words: Sequence[str], style: str, marks: tuple[str, str]) -> Text:
    """Words that differ, between marks or in a style; of many the first."""
    if not words:
        return Text()
    more = f"…{len(words) - SHOWN_OF_ONE:,} more words " if len(words) > SHOWN_OF_ONE else ""
    said = "".join(map(shown_word, words[:SHOWN_OF_ONE])) + more
    bare = said.rstrip(" ")
    return Text.assemble((marks[0] + bare + marks[1], style), said[len(bare) :])


def shown_word(word: str) -> str:
    """A word as it may reach a terminal; of a very long one the beginning."""
    bare = word.rstrip(" ")
    more = f"…{len(bare) - SHOWN_OF_WORD:,} more characters" if len(bare) > SHOWN_OF_WORD else ""
    return visible(bare[:SHOWN_OF_WORD]) + more + word[len(bare) :]


def summary_json(found: Summary) -> dict[str, Any]:
    """The figures as plain data; null where there is none."""
    return {
        "documents": found.documents,
        "removed": dict(found.removed),
        "clusters": {str(size): count for size, count in found.clusters.items()},
        "buckets": {str(size): count for size, count in found.buckets.items()},
        "compared": found.compared,
        "verified": found.verified,
        "left_out": found.left_out,
        "domains": [asdict(one) for one in found.domains],
        "folders": [asdict(one) for one in found.folders],
        "step": found.step.model_dump(mode="json"),
    }


def cluster_json(one: Cluster) -> dict[str, Any]:
    """A cluster as plain data."""
    return {
        "id": one.id,
        "url": one.url,
        "run": one.run,
        "size": one.size,
        "weight": one.weight,
        "members": [member_json(member) for member in one.members],
    }


def member_json(one: Member) -> dict[str, Any]:
    """A removed document as plain data. Of its diff: `words` that are equal, what differs as it stands on either side,
    `characters` that were not compared; null where there is no diff.
    """
    return {
        "id": one.id,
        "url": one.url,
        "method": one.method,
        "similarity": one.similarity,
        "compared": one.compared,
        "exact": one.exact,
        "diff": None if one.diff is None else [stretch_json(stretch) for stretch in one.diff],
    }


def stretch_json(one: Stretch) -> dict[str, Any]:
    """A stretch of a diff as plain data."""
    if one.kind == "equal":
        return {"kind": one.kind, "words": len(one.first)}
    sides = {"kept": "".join(one.first), "removed": "".join(one.second)}
    if one.kind == "changed":
        return {"kind": one.kind, **sides}
    return {"kind": one.kind, "characters": {name: len(text) for name, text in sides.items()}}
