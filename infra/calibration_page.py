"""The page of a calibration: one file with its charts (Vega-Lite) and all that draws them; it loads nothing.

What is said of a calibration in words is made here for the page and the terminal alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

from infra.calibration import CONFIDENCE, Calibration, Rate, needed
from infra.thresholds_page import BOUND, POOL, PROPOSED, REFERENCE, STYLE, in_script, number, vega

CHOSEN, WRONG = "#54a24b", "#aaaaaa"
TITLES = ("learning rate", "bits/byte", "spread", "effect", "SE", "SNR", "diverged")
TRAINED_BY = {
    "wsd": "on which gristmill ablate trains",
    "cosine": "on which gristmill train trains for one budget; ablate asks for wsd",
}
OWN_STYLE = """
body { box-sizing: border-box } h2 { font-family: inherit; margin: 0 } p.says { min-height: 3em; line-height: 1.4 }
table { font-size: 14px; margin: 1rem 0 } .wide { overflow-x: auto }
tr.chosen td { font-weight: 600; background: #eaf4e8 } tr.diverged td { color: #b3261e }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 1.6rem 2rem }
.chart { width: 100% } .charts section { min-width: 0 } .vega-embed { width: 100% }
@media (max-width: 480px) {
  table { font-size: 11px; width: 100% } th, td { padding-right: .3rem } p.says { min-height: 0 }
}
"""
SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
document.querySelectorAll(".chart").forEach(e =>
  vegaEmbed(e, charts[e.dataset.chart], {actions: false, renderer: "svg"}));
"""


def calibration_page(found: Calibration) -> str:
    """The page: the rate and why, the table, and what each seed, the noise, their ratio and the loss are by rate."""
    title = f"Learning rate of {found.size} models on {found.tokens:,} tokens, schedule {found.schedule}"
    drawn = {
        "effect": ("Planted effect", "Bits per byte without the shuffled documents minus with them, a point for each "
                   "seed; less is better. Bar: mean ± 1 standard error.", effects(found)),
        "snr": ("Signal over noise", "The mean effect over its standard error. Above the dashed line the effect is "
                f"told from the noise of {len(found.seeds)} seeds with {CONFIDENCE:.0%} confidence. Green: chosen; "
                "grey: of the wrong sign.", ratios(found)),
        "spread": ("Spread over seeds", "Standard deviation of the bits per byte of models that differ in nothing "
                   "but their seed, with the shuffled documents.", spreads(found)),
        "loss": ("Bits per byte", "A point for each model; the smallest is not what a rate is chosen by.",
                 losses(found)),
    }  # fmt: skip
    sections = "".join(
        f'<section><h2>{escape(name)}</h2><p class="says">{escape(says)}</p>'
        f'<div class="chart" data-chart="{key}"></div></section>'
        for key, (name, says, _) in drawn.items()
    )
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(found))
    charts = {key: chart for key, (_, _, chart) in drawn.items()}
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline' 'unsafe-eval'\">"
        f"<title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'{said}{rows(found)}<div class="charts">{sections}</div>'
        f'<script type="application/json" id="charts">{in_script(charts)}</script>'
        f"<script>{vega()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def sentences(found: Calibration) -> Iterator[str]:
    """Which rate is chosen and why, what else a reader should know, and what the choice does not say."""
    seeds = len(found.seeds)
    rule = f"removing the shuffled documents helps with {CONFIDENCE:.0%} confidence (SNR above {needed(seeds):.1f} "
    rule += f"of {seeds} seeds)"
    best = next((one for one in found.rates if one.learning_rate == found.learning_rate), None)
    if best is None:
        yield (
            f"No rate is chosen: there is none at which no run diverged and {rule}. More tokens, more seeds or a "
            "larger size tell more."
        )
    else:
        yield (
            f"Chosen: {best.learning_rate:g}. Its SNR of {best.snr or 0.0:.1f} is the largest among the rates at which "
            f"no run diverged and {rule}."
        )
        yield from smallest_loss(found, best)
    for one in found.rates:
        if one.diverged:
            yield f"At {one.learning_rate:g}, {one.diverged} of {len(one.runs)} runs diverged: it cannot be chosen."
        elif one.snr is not None and wrong(one) and one.snr > needed(seeds):
            yield (
                f"At {one.learning_rate:g} removing the shuffled documents does harm beyond the noise: on so few "
                "tokens models have not yet learned what the order of words tells. Take more."
            )
    yield (
        "A rate is chosen by signal over noise, not by loss: there an experiment tells arms apart with the fewest "
        "runs. That does not say which rate trains the best model, and a standard error of "
        f"{seeds} seeds is itself known to about {1 / math.sqrt(2 * (seeds - 1)):.0%} only."
    )
    yield f"It holds for this pool, size and budget and the schedule {found.schedule}, {TRAINED_BY[found.schedule]}."


def smallest_loss(found: Calibration, best: Rate) -> Iterator[str]:
    """That another rate than the chosen one has the smallest loss, if so, and why it is not taken."""
    whole = {one: loss for one in found.rates if (loss := mean_bits(one)) is not None and not one.diverged}
    least = min(whole, key=whole.__getitem__)
    if least != best and least.spread and best.spread:
        snr = "" if least.snr is None else f" and an SNR of {least.snr:.1f}"
        yield (
            f"The smallest loss is at {least.learning_rate:g}, with {least.spread / best.spread:.1f} times the spread "
            f"over seeds{snr}."
        )


def wrong(one: Rate) -> bool:
    """Whether the clean arm is the worse one: no signal, however large."""
    return one.effect is not None and one.effect > 0


def mean_bits(one: Rate) -> float | None:
    """Mean of the runs with the shuffled documents that did not diverge."""
    whole = [bits for bits in one.all if bits is not None]
    return sum(whole) / len(whole) if whole else None


def rows(found: Calibration) -> str:
    """The table of the rates; the chosen one stands out."""
    body = "".join(
        f'<tr class="{row_class(found, one)}">'
        + "".join(f'<td class="n">{escape(cell)}</td>' for cell in rate_cells(one))
        + "</tr>"
        for one in found.rates
    )
    header = "".join(f'<th class="n">{title}</th>' for title in TITLES)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def row_class(found: Calibration, one: Rate) -> str:
    """`chosen`, `diverged`, or nothing."""
    if one.learning_rate == found.learning_rate:
        return "chosen"
    return "diverged" if one.diverged else ""


def rate_cells(one: Rate) -> tuple[str, ...]:
    """One rate as text, by TITLES; a dash where there is no number."""
    loss, effect = mean_bits(one), one.effect
    return (
        f"{one.learning_rate:g}",
        "-" if loss is None else f"{loss:.4f}",
        "-" if one.spread is None else f"{one.spread:.4f}",
        "-" if effect is None else f"{effect:+.4f}",
        "-" if one.standard_error is None else f"{one.standard_error:.4f}",
        "-" if one.snr is None else f"{one.snr:.1f}",
        f"{one.diverged} of {len(one.runs)}" if one.diverged else "-",
    )


def x_of(found: Calibration) -> dict[str, Any]:
    """The axis of learning rates, logarithmic, a tick for each."""
    rates = sorted(one.learning_rate for one in found.rates)
    domain = [rates[0] / math.sqrt(2), rates[-1] * math.sqrt(2)]
    return {
        "field": "rate",
        "type": "quantitative",
        "scale": {"type": "log", "domain": domain, "nice": False},
        "axis": {"title": "peak learning rate", "values": rates, "format": "~g", "labelOverlap": "greedy"},
    }


def y_of(field: str, title: str, *, zero: bool) -> dict[str, Any]:
    """An axis of numbers."""
    axis = {"title": title, "tickCount": 6}
    return {"field": field, "type": "quantitative", "scale": {"zero": zero}, "axis": axis}


def chart(found: Calibration, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """A Vega-Lite specification of these layers, as wide as its place; a cross at its foot where runs diverged."""
    crosses = [
        {"rate": one.learning_rate, "says": f"{one.diverged} of {len(one.runs)}\ndiverged"}
        for one in found.rates
        if one.diverged
    ]
    x, tooltip = x_of(found), [{"field": "rate"}, {"field": "says", "title": "runs"}]
    at_foot = {"x": x, "y": {"value": 212}, "tooltip": tooltip}
    cross = {"type": "point", "shape": "cross", "angle": 45, "color": PROPOSED, "filled": True, "size": 120}
    words = {"type": "text", "dy": -27, "color": PROPOSED, "fontSize": 11, "lineBreak": "\n"}
    said = [
        {"data": {"values": crosses}, "mark": cross, "encoding": at_foot},
        {"data": {"values": crosses}, "mark": words, "encoding": {**at_foot, "text": {"field": "says"}}},
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "config": {"axis": {"gridColor": "#eeeeee"}, "view": {"stroke": "#cccccc"}},
        "width": "container",
        "height": 220,
        "layer": [*layers, *(said if crosses else [])],
    }


def line_at(value: float, *, dashed: bool = False) -> dict[str, Any]:
    """A level line."""
    mark = {"type": "rule", "color": BOUND, "strokeDash": [5, 4] if dashed else [1, 0]}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {"y": {"datum": value}}}


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
    x, y = x_of(found), y_of("effect", "effect", zero=True)
    bar = {"type": "rule", "color": POOL, "strokeWidth": 7, "opacity": 0.4}
    mean = {"type": "tick", "color": POOL, "thickness": 2, "width": 18, "orient": "horizontal"}
    point = {"type": "point", "color": POOL, "filled": True, "size": 40}
    tooltip = [{"field": name} for name in ("rate", "seed", "effect")]
    return chart(
        found,
        [
            line_at(0),
            {
                "data": {"values": bars},
                "mark": bar,
                "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}},
            },
            {"data": {"values": bars}, "mark": mean, "encoding": {"x": x, "y": y}},
            {"data": {"values": points}, "mark": point, "encoding": {"x": x, "y": y, "tooltip": tooltip}},
        ],
    )


def by_rate(found: Calibration, field: str, title: str) -> list[dict[str, Any]]:
    """A stem for each rate that has this number, in the colour of the rate."""
    values = [
        {"rate": one.learning_rate, field: number(value), "colour": colour_of(found, one)}
        for one in found.rates
        if (value := getattr(one, field)) is not None
    ]
    x, y = x_of(found), y_of(field, title, zero=True)
    colour = {"field": "colour", "type": "nominal", "scale": None}
    stem = {"x": x, "y": y, "y2": {"datum": 0}, "color": colour}
    tooltip = [{"field": "rate"}, {"field": field, "title": title}]
    return [
        {"data": {"values": values}, "mark": {"type": "rule", "strokeWidth": 3}, "encoding": stem},
        {
            "data": {"values": values},
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
    ]


def colour_of(found: Calibration, one: Rate) -> str:
    """Of a rate: chosen, of the wrong sign, or neither."""
    return CHOSEN if one.learning_rate == found.learning_rate else WRONG if wrong(one) else POOL


def ratios(found: Calibration) -> dict[str, Any]:
    """SNR by rate, and the line above which it tells something."""
    return chart(found, [line_at(number(needed(len(found.seeds))), dashed=True), *by_rate(found, "snr", "SNR")])


def spreads(found: Calibration) -> dict[str, Any]:
    """Standard deviation over seeds by rate."""
    return chart(found, by_rate(found, "spread", "bits per byte"))


def losses(found: Calibration) -> dict[str, Any]:
    """A point for each model."""
    points = [
        {"rate": one.learning_rate, "bits": number(bits), "seed": seed, "arm": arm}
        for one in found.rates
        for arm, by_seed in (("with shuffled", one.all), ("without", one.clean))
        for seed, bits in zip(found.seeds, by_seed, strict=True)
        if bits is not None
    ]
    colour = {
        "field": "arm",
        "type": "nominal",
        "scale": {"domain": ["with shuffled", "without"], "range": [REFERENCE, POOL]},
        "legend": {"title": None, "orient": "top"},
    }
    y, tooltip = y_of("bits", "bits per byte", zero=False), [{"field": one} for one in ("rate", "seed", "arm", "bits")]
    encoding = {"x": x_of(found), "y": y, "color": colour, "tooltip": tooltip}
    mark = {"type": "point", "filled": True, "size": 40, "opacity": 0.8}
    return chart(found, [{"data": {"values": points}, "mark": mark, "encoding": encoding}])
