"""`gristmill thresholds`: where to set a bound, from the stored signals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.options import Json, Out, Workers
from infra.terminal import data, from_here, page_written, table, visible

if TYPE_CHECKING:
    from infra.thresholds import Threshold, Thresholds

Against = Annotated[
    str | None, typer.Option("--against", help="An annotated run over a better corpus.", show_default=False)
]
Names = Annotated[
    list[str] | None, typer.Option("--signal", help="Only this signal; may be repeated.", show_default=False)
]
Worth = Annotated[float, typer.Option(min=1.0, help="How many documents of the pool one of the reference is worth.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with charts to this file.", show_default=False)]
Sampled = Annotated[int, typer.Option("--sample", min=1000, help="Documents to look at; all where there are fewer.")]


def thresholds(
    out: Out,
    against: Against = None,
    signal: Names = None,
    worth: Worth = 2.0,
    sample: Sampled = 1_000_000,
    html: Html = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """How every signal is distributed, what its bounds remove, and where a better corpus separates from this one."""
    from infra.processes import cores
    from infra.run import read_run
    from infra.store import open_store
    from infra.thresholds import thresholds as found_thresholds
    from infra.thresholds_page import thresholds_page

    reference = None if against is None else read_run(open_store(against))
    found = found_thresholds(
        read_run(open_store(out)),
        reference,
        names=signal or (),
        worth=worth,
        sample=sample,
        workers=workers or cores(),
    )
    if html is not None:
        page_written(html, lambda: thresholds_page(found, pool=out, reference=against))
    if as_json:
        data(thresholds_json(found))
        return
    show(found, compared=against is not None)
    if html is not None:
        print(f"\ncharts    {from_here(str(html))}")


def show(found: Thresholds, *, compared: bool) -> None:
    """Print a line for each signal; with a reference, those that it separates first."""
    sampled = "" if found.sampled == found.documents else f", a sample of {found.sampled:,} by key"
    print(f"{found.documents:,} documents{sampled}\n")
    if not compared:
        columns = [("signal", "left"), ("p5", "right"), ("median", "right"), ("p95", "right")]
        columns += [("bound now", "left"), ("removes", "right")]
        table(columns, [(name(one), *spread(one), *bounds_now(one)) for one in found.signals])
        print("\nremoves: of the documents with a text, those without a defined value among them")
        return
    print(f"reference: {found.reference_documents:,} documents\n")
    columns = [("signal", "left"), ("distance", "right"), ("bound now", "right")]
    columns += [("proposed", "right"), ("removes", "right"), ("of ref.", "right")]
    table(columns, [(name(one), f"{one.distance:.3f}", bounds_now(one)[0], *proposed(one)) for one in found.signals])
    print(
        "\nproposed: where the excess of this corpus falls below "
        f"{found.worth:g} documents to one of the reference; removes: of the documents here with a value"
    )
    if not any(one.proposals for one in found.signals):
        print("no bound is proposed: nowhere does this corpus exceed the reference by more than chance")
    if found.not_compared:
        print(f"\nnot stored by the reference, or measured otherwise: {visible(', '.join(found.not_compared))}")


def name(one: Threshold) -> str:
    """The column of a signal."""
    return visible(one.column.name)


def spread(one: Threshold) -> tuple[str, str, str]:
    """Three quantiles of a signal."""
    if not one.pool.count:
        return "", "", ""
    low, median, high = one.pool.quantiles[1:4]
    return f"{low:.4g}", f"{median:.4g}", f"{high:.4g}"


def bounds_now(one: Threshold) -> tuple[str, str]:
    """The bounds of the recipe's rules on a signal, and what each removes, a line for each."""
    return "\n".join(now.rule.bounds for now in one.rules), "\n".join(f"{now.documents:.2%}" for now in one.rules)


def proposed(one: Threshold) -> tuple[str, str, str]:
    """The proposed bounds, and what each removes of both corpora, a line for each."""
    return (
        "\n".join(f"{found.side} {found.bound:.4g}" for found in one.proposals),
        "\n".join(f"{found.pool:.2%}" for found in one.proposals),
        "\n".join(f"{found.reference:.2%}" for found in one.proposals),
    )


def thresholds_json(found: Thresholds) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "documents": found.documents,
        "sampled": found.sampled,
        "reference_documents": found.reference_documents,
        "reference_sampled": found.reference_sampled,
        "worth": found.worth,
        "not_compared": list(found.not_compared),
        "signals": [signal_json(one) for one in found.signals],
    }


def signal_json(one: Threshold) -> dict[str, Any]:
    """One signal as plain data; shares are of documents with a value."""
    column, curve = one.column, one.curve
    said: dict[str, Any] = {
        "column": column.name,
        "signal": column.signal.name,
        "revision": column.signal.revision,
        "view": column.view,
        "words": column.words,
        "kind": column.signal.kind,
        "says": column.signal.says,
        "documents": one.pool.count,
        "undefined": one.pool.undefined,
        "without_text": one.pool.missing,
        "retention": {
            "at": curve.at.tolist(),
            "smaller": {"documents": curve.smaller.tolist(), "tokens": curve.smaller_weight.tolist()},
            "not_larger": {"documents": curve.not_larger.tolist(), "tokens": curve.not_larger_weight.tolist()},
        },
        "rules": [
            {
                "rule": now.rule.name,
                "bounds": now.rule.bounds,
                "removes": {"documents": now.documents, "tokens": now.tokens},
            }
            for now in one.rules
        ],
    }
    if one.histogram is not None:
        shares = [found.tolist() for found in one.histogram.shares]
        said["histogram"] = {"edges": one.histogram.edges.tolist(), "pool": shares[0], "reference": shares[1:]}
    if one.reference is not None:
        said["distance"] = one.distance
        said["proposals"] = [
            {
                "side": found.side,
                "bound": found.bound,
                "pool": {"documents": found.pool, "tokens": found.pool_weight},
                "reference": {"documents": found.reference, "tokens": found.reference_weight},
            }
            for found in one.proposals
        ]
    return said
