"""`gristmill thresholds --html`: one file with its charts (Vega-Lite) and all that draws them; it loads nothing.

Names come from recipes and packages of users: they are escaped in HTML and in scripts.
"""

from __future__ import annotations

import json
from html import escape
from importlib.metadata import version
from typing import Any

from infra.thresholds import Threshold, Thresholds
from pipelines.cache import cache_folder, write_whole

POOL, REFERENCE = "#4c78a8", "#f58518"
BOUND, PROPOSED = "#222222", "#e45756"

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .2rem; font-family: monospace }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .15rem .7rem .15rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } th { border-bottom: 1px solid #999 }
p.says { margin: .1rem 0; color: #555 } .chart { min-height: 235px } a { color: #1f5f9f; text-decoration: none }
.key span { display: inline-block; width: 1.4em; height: .75em; margin: 0 .35em 0 1.2em; vertical-align: baseline }
@media print { h2 { break-after: avoid } }
"""

SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
const draw = (entries, seen) => entries.filter(e => e.isIntersecting).forEach(e => {
  seen.unobserve(e.target);
  vegaEmbed(e.target, charts[e.target.dataset.chart], {actions: false, renderer: "svg"});
});
const seen = new IntersectionObserver(draw, {rootMargin: "600px"});
document.querySelectorAll(".chart").forEach(e => seen.observe(e));
const all = () => [...document.querySelectorAll(".chart")].map(e => ({isIntersecting: true, target: e}));
addEventListener("beforeprint", () => draw(all(), seen));
"""


def thresholds_page(found: Thresholds, *, pool: str, reference: str | None) -> str:
    """The page. `pool` and `reference` are the names of the two runs, as a person gave them."""
    shown = [one for one in found.signals if one.histogram is not None]
    charts = {number: chart(one) for number, one in enumerate(shown) if one.constant is None}
    title = f"Thresholds of {pool}" + (f" against {reference}" if reference is not None else "")
    sampled = "" if found.sampled == found.documents else f", a sample of {found.sampled:,} by key"
    head = f"<p>{found.documents:,} documents{sampled}; {len(shown)} signals.</p>"
    if reference is not None:
        head += (
            f"<p>Reference: {found.reference_documents:,} documents. A proposed bound is where the excess of the pool "
            f"falls below {found.worth:g} documents to one of the reference; signals are in the order of their "
            "distance (Wasserstein, in standard deviations).</p>"
        )
    key = (
        f'<p class="key"><span style="background:{POOL}"></span>pool'
        + (f'<span style="background:{REFERENCE}"></span>reference' if reference is not None else "")
        + f'<span style="background:{BOUND}"></span>bound of the recipe'
        + (f'<span style="background:{PROPOSED}"></span>proposed' if reference is not None else "")
        + "</p>"
    )
    sections = "".join(section(number, one) for number, one in enumerate(shown))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline' 'unsafe-eval'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{head}{key}"
        f"{contents(shown, compared=reference is not None)}{sections}"
        f'<script type="application/json" id="charts">{in_script(charts)}</script>'
        f"<script>{vega()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def in_script(value: Any) -> str:
    """JSON that ends no script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def vega() -> str:
    """Vega, Vega-Lite and vega-embed in one script; kept in the user's cache, for making it takes seconds."""
    import vl_convert

    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    if not kept.is_file():
        write_whole(kept, vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
    return kept.read_text(encoding="utf-8").replace("</script", "<\\/script")


def contents(shown: list[Threshold], *, compared: bool) -> str:
    """The table of all signals, each leading to its charts."""
    titles = ["signal", "n:p5", "n:median", "n:p95", "bound now", "n:removes"]
    titles += ["n:distance", "proposed", "n:of pool", "n:of reference"] if compared else []
    rows = "".join(
        "<tr>" + "".join(cell(title, value) for title, value in zip(titles, row(number, one, compared), strict=True))
        + "</tr>"
        for number, one in enumerate(shown)
    )  # fmt: skip
    header = "".join(
        f'<th class="n">{title[2:]}</th>' if title.startswith("n:") else f"<th>{title}</th>" for title in titles
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def cell(title: str, value: str) -> str:
    """A table cell; `value` is HTML."""
    return f'<td class="n">{value}</td>' if title.startswith("n:") else f"<td>{value}</td>"


def row(number: int, one: Threshold, compared: bool) -> list[str]:
    """The cells of one signal, as HTML."""
    p5, median, p95 = (f"{value:.4g}" for value in one.pool.quantiles[1:4]) if one.pool.count else ("", "", "")
    cells = [
        f'<a href="#s{number}">{escape(one.column.name)}</a>',
        p5,
        median,
        p95,
        "<br>".join(escape(now.rule.bounds) for now in one.rules),
        "<br>".join(f"{now.documents:.2%}" for now in one.rules),
    ]
    if compared:
        cells += [
            f"{one.distance:.3f}",
            "<br>".join(f"{found.side} {found.bound:.4g}" for found in one.proposals),
            "<br>".join(f"{found.pool:.2%}" for found in one.proposals),
            "<br>".join(f"{found.reference:.2%}" for found in one.proposals),
        ]
    return cells


def section(number: int, one: Threshold) -> str:
    """The charts of one signal under its name; of one that does not vary, its value."""
    rules = "; ".join(f"{now.rule.name} keeps {now.rule.bounds}" for now in one.rules)
    apart = [
        f"{one.pool.undefined:,} undefined" * bool(one.pool.undefined),
        f"{one.pool.missing:,} without text" * bool(one.pool.missing),
    ]
    said = "; ".join(filter(None, [one.column.signal.says, rules, *apart]))
    drawn = f'<div class="chart" data-chart="{number}"></div>'
    if one.constant is not None:
        drawn = f"<p>constant: {one.constant:.6g}</p>"
    return f'<h2 id="s{number}">{escape(one.column.name)}</h2><p class="says">{escape(said)}</p>{drawn}'


def chart(one: Threshold) -> dict[str, Any]:
    """Histogram and retention of one signal side by side, as a Vega-Lite specification."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "config": {"axis": {"gridColor": "#eeeeee"}, "view": {"stroke": "#cccccc"}},
        "hconcat": [
            {"width": 430, "height": 170, "layer": [*bars(one), *marks(one)]},
            {"width": 430, "height": 170, "layer": [*curves(one), *marks(one)]},
        ],
    }


def x_of(one: Threshold, **more: Any) -> dict[str, Any]:
    """The encoding of values: symmetric-log where the histogram is, clipped to its range."""
    assert one.histogram is not None, "only signals with a value are drawn"
    low, high = float(one.histogram.edges[0]), float(one.histogram.edges[-1])
    scale: dict[str, Any] = {"domain": [low, high], "nice": False, "clamp": True, "zero": False}
    return {
        "type": "quantitative",
        "scale": scale | ({"type": "symlog"} if one.histogram.log else {}),
        "axis": {"title": None, "tickCount": 6, "format": ".3~g" if high < 1e4 else "~s"},
        **more,
    }


def bars(one: Threshold) -> list[dict[str, Any]]:
    """The histogram of the pool as bars, and of the reference as a line of steps."""
    assert one.histogram is not None, "only signals with a value are drawn"
    edges = one.histogram.edges
    found = []
    for shares, color, filled in zip(one.histogram.shares, (POOL, REFERENCE), (0.55, 0.0), strict=False):
        values = [
            {"x": number(low), "x2": number(high), "share": number(share)}
            for low, high, share in zip(edges, edges[1:], shares, strict=False)
        ]
        found.append(
            {
                "data": {"values": values},
                "mark": {"type": "bar", "color": color, "fillOpacity": filled, "stroke": color, "strokeWidth": 1.2},
                "encoding": {
                    "x": x_of(one, field="x"),
                    "x2": {"field": "x2"},
                    "y2": {"datum": 0},
                    "y": {
                        "field": "share",
                        "type": "quantitative",
                        "axis": {"title": "share of documents", "format": "%"},
                    },
                    "tooltip": [
                        {"field": name, "type": "quantitative", "format": ".4~g"} for name in ("x", "x2", "share")
                    ],
                },
            }
        )
    return found


def curves(one: Threshold) -> list[dict[str, Any]]:
    """What would be kept with the bound at x: one pair of lines (documents, tokens) for each side."""
    curve = one.curve
    sides = {side for now in one.rules for side in ("low", "high") if getattr(now.rule, side) is not None}
    sides |= {found.side for found in one.proposals}
    kept = {
        ("low", "documents"): 1 - curve.smaller,
        ("low", "tokens"): 1 - curve.smaller_weight,
        ("high", "documents"): curve.not_larger,
        ("high", "tokens"): curve.not_larger_weight,
    }
    values = [
        {"x": number(x), "kept": number(share), "bound": side, "of": of}
        for (side, of), shares in kept.items()
        if side in (sides or {"low", "high"})
        for x, share in zip(curve.at, shares, strict=True)
    ]
    return [
        {
            "data": {"values": values},
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6, "clip": True},
            "encoding": {
                "x": x_of(one, field="x"),
                "y": {
                    "field": "kept",
                    "type": "quantitative",
                    "scale": {"domain": [0, 1]},
                    "axis": {"title": "kept with the bound here", "format": "%"},
                },
                "color": {
                    "field": "bound",
                    "type": "nominal",
                    "scale": {"domain": ["low", "high"], "range": ["#54a24b", "#b279a2"]},
                },
                "strokeDash": {
                    "field": "of",
                    "type": "nominal",
                    "scale": {"domain": ["documents", "tokens"]},
                    "title": None,
                },
                "tooltip": [{"field": name} for name in ("bound", "of", "x", "kept")],
            },
        }
    ]


def marks(one: Threshold) -> list[dict[str, Any]]:
    """Upright lines at the bounds of the recipe and at those proposed."""
    assert one.histogram is not None, "only signals with a value are drawn"
    low, high = float(one.histogram.edges[0]), float(one.histogram.edges[-1])
    now = [bound for rule in one.rules for bound in (rule.rule.low, rule.rule.high) if bound is not None]
    proposed = [found.bound for found in one.proposals]
    return [
        {
            "data": {"values": [{"x": number(x)} for x in places if low <= x <= high]},
            "mark": {"type": "rule", "color": color, "strokeWidth": 1.6, "strokeDash": dash},
            "encoding": {"x": x_of(one, field="x")},
        }
        for places, color, dash in ((now, BOUND, [1, 0]), (proposed, PROPOSED, [5, 3]))
        if any(low <= x <= high for x in places)
    ]


def number(value: float) -> float:
    """Six digits are more than a chart shows."""
    return float(f"{value:.6g}")
