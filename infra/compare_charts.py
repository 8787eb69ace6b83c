"""The charts of a report on experiments: Vega-Lite specifications, and SVG that stands in a page without any script.

Colours are CSS variables of the page, so that one drawing serves light and dark. A specification is a function of its
width in pixels: every figure is drawn once for a desk and once for a telephone, and the page shows one of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.comparison import Band
from infra.experiment_results import Bounds, Point, RunResult
from infra.terminal import visible
from proxy_eval.looks import higher_better

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

WIDE, HALF, PHONE = 1000, 490, 340
"""Pixels of a figure across the page, of one that has a neighbour, and of any on a telephone (390 less the margins)."""
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
INK, SOFT, LINE, FILL = "var(--ink)", "var(--soft)", "var(--line)", "var(--fill)"
SHAPES = {
    "KEEP": ("var(--keep)", "triangle-up"),
    "REJECT": ("var(--reject)", "triangle-down"),
    "NEUTRAL": ("var(--neutral)", "square"),
    "UNDECIDED": ("var(--undecided)", "circle"),
    "matched": (SOFT, "diamond"),
}
"""Colour and shape of a verdict, and of a random removal that is matched to an arm."""
CONFIG = {
    "aria": False,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "text": {"color": INK, "fontSize": 12},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor"), SOFT),
        **dict.fromkeys(("gridColor", "domainColor", "tickColor"), LINE),
        **dict.fromkeys(("labelFontSize", "titleFontSize"), 12),
        "titleFontWeight": "normal",
    },
    "axisY": {"titleX": -54, "titleAnchor": "middle", "titleAlign": "center"},
    "axisX": {
        "titleY": 32,
    },
}
SHARE_LABEL = "abs(datum.value) < 1e-9 ? '0' : format(100 * (pow(2, datum.value) - 1), '+.1~f') + ' %'"
"""Of a tick in doublings: its share of the tokens."""
TOKENS_LABEL = "datum.value == 0 ? '0' : format(datum.value, '~s')"
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)


def figure(name: str, caption: str, make: Callable[[int], Spec], *, width: int = WIDE) -> str:
    """The chart in both widths above its caption (HTML); `name` is of this figure alone."""
    label = re.sub(r"<[^>]+>", "", caption)
    both = "".join(
        f'<div class="{shown}" role="img" aria-label="{label}">{svg(make(across), f"{name}-{shown}")}</div>'
        for shown, across in (("desk", width), ("phone", PHONE))
    )
    return f'<figure id="{name}">{both}<figcaption>{caption}</figcaption></figure>'


def svg(spec: Spec, name: str) -> str:
    """The drawing. Ids in it begin with `name`, and are the same each time; places are kept to a tenth of a pixel."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(spec)
    numbers: dict[str, int] = {}  # Vega counts clips through the process

    def renamed(found: re.Match[str]) -> str:
        return f"{found[1]}{name}-{numbers.setdefault(found[2], len(numbers))}"

    drawn = re.sub(r'(clip-path="url\(#|<clipPath id=")(clip\d+)', renamed, drawn)
    return re.sub(r' (?:d|transform)="[^"]*"', rounded, drawn)


def rounded(attribute: re.Match[str]) -> str:
    """The attribute with one digit behind each point."""
    return re.sub(r"-?\d+\.\d{2,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.1f}", attribute[0])


def chart(layers: Sequence[Spec | None], width: int, height: int, **padding: int) -> Spec:
    """These layers in a plot of this height; `width` is with the padding (left, right, top, bottom)."""
    sides = {"left": 70, "right": 14, "top": 8, "bottom": 52} | padding
    return {
        "$schema": SCHEMA,
        "background": None,
        "autosize": {"type": "none"},
        "padding": sides,
        "width": width - sides["left"] - sides["right"],
        "height": height,
        "config": CONFIG,
        "layer": [layer for layer in layers if layer is not None],
    }


def layer(rows: Rows, mark: Mapping[str, Any], **encoding: Any) -> Spec | None:
    """One layer; none where there is nothing to draw."""
    return {"data": {"values": rows}, "mark": dict(mark), "encoding": encoding} if rows else None


def quantity(field: str, domain: Sequence[float], axis: Mapping[str, Any] | None, **scale: Any) -> Spec:
    """A place on an axis that ends at the domain."""
    found = {"domain": [number(end) for end in domain], "nice": False, "zero": False, **scale}
    return {"field": field, "type": "quantitative", "scale": found, "axis": axis}


def of_verdict() -> dict[str, Spec]:
    """Colour and shape by verdict."""
    colours, shapes = zip(*SHAPES.values(), strict=True)
    scales = {"color": {"domain": list(SHAPES), "range": colours}, "shape": {"domain": list(SHAPES), "range": shapes}}
    return {
        what: {"field": "kind", "type": "nominal", "scale": scale, "legend": None} for what, scale in scales.items()
    }


def number(value: float) -> float:
    """Six digits are more than a chart shows."""
    return float(f"{value:.6g}")


def span(every: Sequence[Bounds], rope: float) -> tuple[float, float]:
    """What an axis of doublings shows: every estimate, three ROPEs, and most of the bounds. The few intervals that are
    much wider than the others, and what lies beyond the control's curve, leave the picture, lest all others be dots.
    """
    ends = []
    for sign in (-1.0, 1.0):
        known = [sign * one.estimate for one in every if one.estimate is not None and abs(one.estimate) < 1]
        bounds = [one.low if sign < 0 else one.high for one in every]
        outer = [sign * end for end in bounds if end is not None and abs(end) < 1]
        ends.append(sign * min(1.0, 1.06 * max(3 * rope, *known, most(outer))))
    return ends[0], ends[1]


def most(ends: Sequence[float]) -> float:
    """The largest of a few numbers; of more the one above 85 % of them."""
    return float(np.quantile(ends, 0.85 if len(ends) > 10 else 1.0)) if ends else 0.0


def share_axis(domain: tuple[float, float], count: int, **more: Any) -> Spec:
    """The axis of doublings, with ticks at round shares of the tokens, a `count`th of it apart at least."""
    low, high = (2**end - 1 for end in domain)
    for step in STEPS:
        values = share_ticks(at * step for at in range(math.ceil(low / step), math.floor(high / step) + 1))
        if min(np.diff(values), default=math.inf) * count >= domain[1] - domain[0]:
            break
    else:
        values = share_ticks(at / 2 for at in range(-1, 3) if low <= at / 2 <= high)
    return {"values": values, "labelExpr": SHARE_LABEL, **more}


def share_ticks(shares: Iterable[float]) -> list[float]:
    """Shares of the tokens in doublings."""
    return [number(math.log2(1 + share)) for share in shares]


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """An interval in doublings: `kind` is a key of SHAPES, `said` stands beside it, `short` where room is little."""

    name: str
    kind: str
    bounds: Bounds
    said: str
    short: str
    placebo: bool = False


def forest(rows: Sequence[ForestRow], rope: float, width: int) -> Spec:
    """An interval a row in the order given, placebos below a line; `rope` in doublings. On a telephone the name stands
    above its interval.
    """
    narrow = width < HALF
    left, right, step = (4, 4, 40) if narrow else (300, 245, 23)
    domain, plot = span([row.bounds for row in rows], rope), width - left - right
    judged = sum(not row.placebo for row in rows)
    gap = step if 0 < judged < len(rows) else 0
    tops = [at * step + gap * row.placebo for at, row in enumerate(rows)]
    height = len(rows) * step + gap
    x = quantity("x", domain, share_axis(domain, 5 if narrow else 9, title="worth, as a share of the tokens"))
    y, place = quantity("y", (0, height), None, reverse=True), of_verdict()
    bars, points, arrows = forest_marks(rows, [top + step * (0.7 if narrow else 0.5) for top in tops], domain)
    dot = {"type": "point", "filled": True, "opacity": 1}
    border = [{"y": judged * step + gap / 2}] if gap else []
    edges = {"x": {"value": 4 - left}, "x2": {"value": plot + right - 4}}
    return chart(
        [
            layer([{"x": -rope, "x2": rope}], {"type": "rect", "color": FILL}, x=x, x2={"field": "x2"}),
            layer([{"x": 0}], {"type": "rule", "color": SOFT}, x=x),
            layer(border, {"type": "rule", "color": SOFT, "strokeDash": [2, 3]}, y=y, **edges),
            layer(bars, {"type": "rule", "strokeWidth": 2}, x=x, x2={"field": "x2"}, y=y, color=place["color"]),
            *(
                layer(found, {**dot, "shape": f"triangle-{side}", "size": 50}, x=x, y=y, color=place["color"])
                for side, found in arrows.items()
            ),
            layer(points, {**dot, "size": 85}, x=x, y=y, **place),
            *forest_texts(rows, [top + step * (0.3 if narrow else 0.5) for top in tops], y, plot, narrow=narrow),
        ],
        width, height, left=left, right=right,
    )  # fmt: skip


def forest_texts(
    rows: Sequence[ForestRow], ys: Sequence[float], y: Spec, plot: int, *, narrow: bool
) -> Iterable[Spec | None]:
    """Names and numbers: left and right of the plot, which is so wide, or above each interval."""
    texts = [
        {"y": at, "name": visible(row.name), "said": row.short if narrow else row.said}
        for at, row in zip(ys, rows, strict=True)
    ]
    near, far = ("left", "right") if narrow else ("right", "left")
    name = {"type": "text", "align": near, "limit": 262 if narrow else 260}
    yield layer(texts, name, x={"value": 0 if narrow else -16}, y=y, text={"field": "name"})
    said = {"type": "text", "align": far, "color": SOFT}
    yield layer(texts, said, x={"value": plot + (0 if narrow else 16)}, y=y, text={"field": "said"})


def forest_marks(
    rows: Sequence[ForestRow], ys: Sequence[float], domain: tuple[float, float]
) -> tuple[Rows, Rows, dict[str, Rows]]:
    """Lines, estimates, and by side arrows where a line goes on beyond the domain."""
    low, high = domain
    bars: Rows = []
    points: Rows = []
    arrows: dict[str, Rows] = {"left": [], "right": []}
    for row, y in zip(rows, ys, strict=True):
        found = row.bounds
        if found.estimate is None:
            continue
        first = low if found.low is None else max(low, found.low)
        last = high if found.high is None else min(high, found.high)
        here = {"y": y, "kind": row.kind}
        bars.append({**here, "x": number(first), "x2": number(last)})
        points.append({**here, "x": number(min(max(found.estimate, low), high))})
        if found.low is None or found.low < low:
            arrows["left"].append({**here, "x": number(low)})
        if found.high is None or found.high > high:
            arrows["right"].append({**here, "x": number(high)})
    return bars, points, arrows


TOGETHER = 5
"""Points of a curve that are one of its gain: batches of their own make neighbours differ by more than rules do."""


def gain(arm: Band, control: Band, sign: float) -> Band:
    """The control's loss minus the arm's, times `sign`, as far as the control goes; means of TOGETHER points each."""
    count = sum(tokens <= control.tokens[-1] for tokens in arm.tokens)
    starts = range(0, count, TOGETHER)
    at = tuple(arm.tokens[min(start + TOGETHER, count) - 1] for start in starts)
    level = np.interp(arm.tokens[:count], control.tokens, control.mean)
    mean, one, other = (
        np.array([np.mean(sign * (level - ends[:count])[start : start + TOGETHER]) for start in starts])
        for ends in map(np.array, (arm.mean, arm.low, arm.high))
    )
    low, high = np.minimum(one, other), np.maximum(one, other)
    return Band(tokens=at, mean=tuple(mean.tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))


def bands(shown: Mapping[str, Band], colours: Mapping[str, str], title: str, width: int, *, zero: bool = False) -> Spec:
    """A line with its band for each arm over tokens, as high as they go after a fifth of them; `zero`: a line there."""
    last = max(band.tokens[-1] for band in shown.values())
    late = [
        value
        for band in shown.values()
        for tokens, *ends in zip(band.tokens, band.low, band.high, strict=True)
        if tokens >= last / 5
        for value in ends
    ]
    room = 0.05 * (max(late) - min(late) or 1.0)
    domain = [min(late) - room, max(late) + room]
    x = quantity("x", (0, last), {"title": "tokens", "labelExpr": TOKENS_LABEL, "tickCount": 5, "grid": False})
    y = quantity("y", domain, {"title": title, "tickCount": 6})
    layers: list[Spec | None] = []
    if zero and domain[0] < 0 < domain[1]:
        layers.append(layer([{"y": 0}], {"type": "rule", "color": SOFT}, y=y))
    rows = {
        name: [
            {"x": tokens, "y": number(mean), "low": number(low), "high": number(high)}
            for tokens, mean, low, high in zip(band.tokens, band.mean, band.low, band.high, strict=True)
        ]
        for name, band in shown.items()
    }
    for name, points in rows.items():
        area = {"type": "area", "clip": True, "opacity": 0.16, "color": colours[name]}
        layers.append(layer(points, area, x=x, y={**y, "field": "low"}, y2={"field": "high"}))
    for name, points in rows.items():
        line = {"type": "line", "clip": True, "strokeWidth": 1.8, "color": colours[name]}
        layers.append(layer(points, line, x=x, y=y))
    return chart(layers, width, 250)


def endpoints(metric: str, curve: Sequence[Point], title: str, width: int) -> Spec:
    """The control at its three budgets, a dot a seed, and the parabola in log tokens through their means."""
    points = [
        {"x": point.tokens, "y": number(higher_better(metric, value))}
        for point in curve
        for value in point.values
        if value is not None
    ]
    means = [np.mean([one["y"] for one in points if one["x"] == point.tokens]) for point in curve]
    below, above = means[1] - means[0], means[2] - means[1]
    slope, bend = (above + below) / 2, (above - below) / 2
    fit = [
        {"x": number(curve[1].tokens * 2**u), "y": number(means[1] + slope * u + bend * u**2)}
        for u in np.linspace(-1, 1, 41).tolist()
    ]
    ends = [one["y"] for one in points]
    room = 0.08 * (max(ends) - min(ends) or 1.0)
    budgets = [point.tokens for point in curve]
    axis = {"title": "tokens", "values": budgets, "format": "~s", "grid": False}
    x = quantity("x", (0.9 * budgets[0], 1.1 * budgets[-1]), axis, type="log")
    y = quantity("y", (min(ends) - room, max(ends) + room), {"title": title, "tickCount": 6})
    dot = {"type": "point", "color": INK, "filled": True, "size": 35, "opacity": 0.65}
    return chart([layer(fit, {"type": "line", "color": SOFT}, x=x, y=y), layer(points, dot, x=x, y=y)], width, 250)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A rule among others: the share of the tokens that it decides over, above 0, and what it is worth."""

    name: str
    kind: str
    share: float
    bounds: Bounds


def scatter(dots: Sequence[Dot], rope: float, width: int) -> Spec:
    """What rules are worth over how much they remove; names where there is room for them, the extremes first."""
    height, low_share = 300, min(dot.share for dot in dots)
    domain = span([dot.bounds for dot in dots], rope)
    shares = (low_share / 1.5, min(1.0, max(dot.share for dot in dots) * 1.5))
    x_axis = {"title": "share of the tokens that the rule decides over", "format": "~%", "grid": False}
    x = quantity("x", shares, {**x_axis, "values": decades(shares)}, type="log")
    y = quantity("y", domain, share_axis(domain, 7, title="worth, as a share of the tokens"))
    rows = [
        {
            "name": visible(dot.name), "kind": dot.kind, "x": number(dot.share),
            "y": number(min(max(dot.bounds.estimate, domain[0]), domain[1])),
            "low": number(max(domain[0], -1.0 if dot.bounds.low is None else dot.bounds.low)),
            "high": number(min(domain[1], 1.0 if dot.bounds.high is None else dot.bounds.high)),
        }
        for dot in dots
        if dot.bounds.estimate is not None
    ]  # fmt: skip
    place = of_verdict()
    bar = {"type": "rule", "opacity": 0.35, "strokeWidth": 1.5}
    named = labelled(rows, shares, domain, width - 84, height)
    return chart(
        [
            layer([{"y": -rope, "y2": rope}], {"type": "rect", "color": FILL}, y=y, y2={"field": "y2"}),
            layer(rows, bar, x=x, y={**y, "field": "low"}, y2={"field": "high"}, color=place["color"]),
            layer(rows, {"type": "point", "filled": True, "size": 80, "opacity": 1}, x=x, y=y, **place),
            *(
                layer(
                    [row for row in named if row["align"] == align],
                    {"type": "text", "align": align, "dx": 8 if align == "left" else -8, "fontSize": 11},
                    x=x, y=y, text={"field": "name"},
                )
                for align in ("left", "right")
            ),
        ],
        width, height,
    )  # fmt: skip


def decades(ends: tuple[float, float]) -> list[float]:
    """Round ticks of a logarithmic axis: 1, 2, 5 of every ten where that is at most seven, else 1 alone."""
    powers = [10.0**power for power in range(-9, 1)]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [number(step * power) for power in powers for step in steps if ends[0] <= step * power <= ends[1]]
        if len(ticks) <= 7:
            break
    return ticks


def labelled(
    rows: Rows, shares: tuple[float, float], domain: tuple[float, float], width: int, height: int
) -> Rows:  # fmt: skip
    """The rows whose names find room beside their dots, the largest effects first; each with the side it is on."""
    taken: list[tuple[float, float, float, float]] = []
    places = []
    for row in sorted(rows, key=lambda row: -abs(row["y"])):
        x = width * math.log(row["x"] / shares[0]) / math.log(shares[1] / shares[0])
        y = height * (domain[1] - row["y"]) / (domain[1] - domain[0])
        places.append((row, x, y))
        taken.append((x - 5, x + 5, y - 5, y + 5))
    found = []
    for row, x, y in places:
        wide = 6.2 * len(row["name"]) + 8  # pixels of a letter at 11 px, on the wide side
        for align, left in (("left", x + 6), ("right", x - 6 - wide)):
            box = (left, left + wide, y - 7, y + 7)
            if left < 0 or box[1] > width or any(overlap(box, other) for other in taken):
                continue
            taken.append(box)
            found.append({**row, "align": align})
            break
    return found


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """True where two boxes (left, right, top, bottom) have a point in common."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def strip(metric: str, runs: Mapping[str, Iterable[RunResult]], title: str, width: int) -> Spec:
    """A dot for each run, a row for each arm, with a tick at its mean."""
    rows: Rows = [
        {"name": visible(name), "x": number(higher_better(metric, run.metric))}
        for name, every in runs.items()
        for run in every
        if run.metric is not None
    ]
    ends = [row["x"] for row in rows]
    room = 0.05 * (max(ends) - min(ends) or 1.0)
    x = quantity("x", (min(ends) - room, max(ends) + room), {"title": title, "tickCount": 5})
    names = [visible(name) for name in runs]
    y = {"field": "name", "type": "nominal", "scale": {"domain": names}, "axis": {"title": None, "labelLimit": 90}}
    tick = {"type": "tick", "color": INK, "thickness": 2, "size": 22}
    return chart(
        [
            layer(rows, {"type": "point", "filled": True, "color": SOFT, "size": 40, "opacity": 0.6}, x=x, y=y),
            layer(rows, tick, x={**x, "aggregate": "mean"}, y=y),
        ],
        width, 34 * len(names), left=96,
    )  # fmt: skip


def learning_rates(calibration: Mapping[str, Any], width: int) -> Spec:
    """What removing shuffled documents brings at each learning rate, with one standard error; the chosen one filled."""
    rows = [
        {
            "x": rate["learning_rate"],
            "y": number(-rate["effect"]),
            "low": number(-rate["effect"] - (rate["standard_error"] or 0.0)),
            "high": number(-rate["effect"] + (rate["standard_error"] or 0.0)),
        }
        for rate in calibration["rates"]
        if rate["effect"] is not None
    ]
    rates = sorted(rate["learning_rate"] for rate in calibration["rates"])
    axis = {"title": "peak learning rate", "values": rates, "format": "~g", "grid": False}
    x = quantity("x", (rates[0] / math.sqrt(2), rates[-1] * math.sqrt(2)), axis, type="log")
    ends = [row[end] for row in rows for end in ("low", "high")] + [0.0]
    room = 0.06 * (max(ends) - min(ends) or 1.0)
    y = quantity("y", (min(ends) - room, max(ends) + room), {"title": "gain in bits per byte", "tickCount": 5})
    chosen = [row for row in rows if row["x"] == calibration["learning_rate"]]
    point = {"type": "point", "color": INK, "size": 80, "opacity": 1}
    return chart(
        [
            layer([{"y": 0}], {"type": "rule", "color": SOFT}, y=y),
            layer(rows, {"type": "rule", "color": INK}, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            layer(rows, {**point, "fill": "var(--page)"}, x=x, y=y),
            layer(chosen, {**point, "filled": True}, x=x, y=y),
        ],
        width,
        200,
    )
