"""The page of a calibration: one file with its charts (Vega-Lite) and all that draws them; it loads nothing."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from infra.calibration import Calibration, Rate
from infra.thresholds_page import BOUND, POOL, REFERENCE, STYLE, in_script, number, vega

SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
document.querySelectorAll(".chart").forEach(e =>
  vegaEmbed(e, charts[e.dataset.chart], {actions: false, renderer: "svg"}));
"""


def calibration_page(found: Calibration) -> str:
    """The page: effect and noise by learning rate, loss by learning rate, and the table."""
    title = f"Learning rate of {found.size} models on {found.tokens:,} tokens"
    head = f"<p>{len(found.seeds)} seeds, each with and without the shuffled documents. {escape(chosen(found))}</p>"
    charts = {"effect": effects(found), "loss": losses(found)}
    drawn = "".join(
        f'<h2>{escape(says)}</h2><div class="chart" data-chart="{name}"></div>'
        for name, says in (
            ("effect", "bits per byte without the shuffled documents minus with them, by seed; bar: mean ± 1 SE"),
            ("loss", "bits per byte, by seed"),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline' 'unsafe-eval'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{head}"
        f"{rows(found)}{drawn}"
        f'<script type="application/json" id="charts">{in_script(charts)}</script>'
        f"<script>{vega()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def chosen(found: Calibration) -> str:
    """What the sweep speaks for, in a sentence."""
    if found.learning_rate is None:
        return (
            "No rate is chosen: at none of them is the effect of removing the documents told from the noise of seeds. "
            "More tokens, more seeds or a larger size tell more."
        )
    return f"Chosen: {found.learning_rate:g}, where the effect of removing them stands out most from the noise."


def rows(found: Calibration) -> str:
    """The table of the rates."""
    titles = ("learning rate", "bits per byte", "spread over seeds", "effect", "standard error", "SNR")
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{escape(cell)}</td>' for cell in rate_cells(one)) + "</tr>"
        for one in found.rates
    )
    header = "".join(f'<th class="n">{title}</th>' for title in titles)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def rate_cells(one: Rate) -> tuple[str, ...]:
    """One rate as text; a dash where there is no number."""
    whole = [bits for bits in one.all if bits is not None]
    mean = sum(whole) / len(whole) if whole else None
    cells = (mean, one.spread, one.effect, one.standard_error)
    snr = "-" if one.snr is None else f"{one.snr:.1f}"
    return f"{one.learning_rate:g}", *("-" if value is None else f"{value:.4f}" for value in cells), snr


def x_of(found: Calibration) -> dict[str, Any]:
    """The axis of learning rates, logarithmic, a tick for each."""
    rates = sorted(one.learning_rate for one in found.rates)
    domain = [rates[0] / math.sqrt(2), rates[-1] * math.sqrt(2)]
    return {
        "field": "rate",
        "type": "quantitative",
        "scale": {"type": "log", "domain": domain, "nice": False},
        "axis": {"title": "peak learning rate", "values": rates, "format": "~g"},
    }


def chart(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """A Vega-Lite specification of these layers."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "config": {"axis": {"gridColor": "#eeeeee"}, "view": {"stroke": "#cccccc"}},
        "width": 640,
        "height": 260,
        "layer": layers,
    }


def effects(found: Calibration) -> dict[str, Any]:
    """A point for each seed, and of each rate the mean with its standard error."""
    points = [
        {"rate": one.learning_rate, "effect": number(clean - whole), "seed": seed}
        for one in found.rates
        for seed, whole, clean in zip(found.seeds, one.all, one.clean, strict=True)
        if whole is not None and clean is not None
    ]
    bars = [
        {
            "rate": one.learning_rate,
            "effect": number(one.effect),
            "low": number(one.effect - (one.standard_error or 0.0)),
            "high": number(one.effect + (one.standard_error or 0.0)),
        }
        for one in found.rates
        if one.effect is not None
    ]
    x, y = x_of(found), {"field": "effect", "type": "quantitative", "axis": {"title": "effect (less is better)"}}
    return chart(
        [
            {"data": {"values": [{}]}, "mark": {"type": "rule", "color": BOUND}, "encoding": {"y": {"datum": 0}}},
            {
                "data": {"values": bars},
                "mark": {"type": "rule", "color": POOL, "strokeWidth": 6, "opacity": 0.45},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "color": POOL, "filled": True, "size": 45},
                "encoding": {"x": x, "y": y, "tooltip": [{"field": name} for name in ("rate", "seed", "effect")]},
            },
        ]
    )


def losses(found: Calibration) -> dict[str, Any]:
    """A point for each model."""
    points = [
        {"rate": one.learning_rate, "bits": number(bits), "seed": seed, "arm": arm}
        for one in found.rates
        for arm, by_seed in (("all", one.all), ("clean", one.clean))
        for seed, bits in zip(found.seeds, by_seed, strict=True)
        if bits is not None
    ]
    colour = {"field": "arm", "type": "nominal", "scale": {"domain": ["all", "clean"], "range": [REFERENCE, POOL]}}
    y = {"field": "bits", "type": "quantitative", "scale": {"zero": False}, "axis": {"title": "bits per byte"}}
    tooltip = [{"field": name} for name in ("rate", "seed", "arm", "bits")]
    return chart(
        [
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": {"x": x_of(found), "y": y, "color": colour, "tooltip": tooltip},
            }
        ]
    )
