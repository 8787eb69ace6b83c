"""How a report on experiments spells numbers and what others wrote; whatever comes back is safe to stand in HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from infra.experiment_results import Bounds
from infra.terminal import visible

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def text(value: object) -> str:
    """Whatever it is, as text: escaped, and what hides or turns text as `\\u{...}`."""
    return escape(visible(str(value)))


def name(value: str) -> str:
    """A name, which may be broken behind its points and underscores."""
    return re.sub(r"([._])", r"\1<wbr>", text(value))


def plain(value: float | None, digits: int) -> str:
    """A number without its plus, a dash for none."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign, a dash for none; what rounds to nothing has no sign."""
    if value is None:
        return DASH
    said = f"{value:+.{digits}f}"
    return said[1:] if float(said) == 0 else said.replace("-", MINUS)


def percent(share: float, digits: int = 1) -> str:
    """A difference as a share: +3.1 %."""
    return f"{signed(100 * share, digits)}{NARROW}%"


def either_way(share: float) -> str:
    """A share in three digits with both signs: ±0.04 %."""
    return f"±{100 * share:.3g}{NARROW}%"


def worth(doublings: float | None) -> str:
    """Doublings of tokens as a share of them, beyond what the control's curve reaches as `> +100 %` and `< -50 %`."""
    if doublings is None:
        return "?"
    if abs(doublings) >= 1:
        return f"&gt; +100{NARROW}%" if doublings > 0 else f"&lt; {MINUS}50{NARROW}%"
    return percent(2**doublings - 1)


def worth_interval(bounds: Bounds) -> str:
    """Both bounds; one that is null lies beyond the curve."""
    low, high = (end if (end := bounds.low) is not None else -1.0), (end if (end := bounds.high) is not None else 1.0)
    return f"[{worth(low)}, {worth(high)}]"


def interval(bounds: Bounds, scale: float = 1.0, digits: int = 1) -> str:
    """Both bounds in units of 1 / scale."""
    return f"[{', '.join(signed(None if one is None else one * scale, digits) for one in (bounds.low, bounds.high))}]"


def volume(count: float) -> str:
    """A count in three digits: 1.25M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}" if count != int(count) else f"{int(count)}"


def several(count: int, noun: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names and how many more there are."""
    first = [f"<b>{name(one)}</b>" for one in names[:most]]
    if len(names) > most:
        first.append(f"{len(names) - most} more")
    return first[0] if len(first) == 1 else f"{', '.join(first[:-1])} and {first[-1]}"


def metric_words(metric: str) -> str:
    """What a metric is of."""
    if metric == "panel":
        return "bits per byte on the panel"
    if metric == "gold":
        return "bits per byte of gold answers"
    kind, _, rest = metric.partition("/")
    return text(f"bits per byte of {rest}" if kind == "panel" else f"{rest} of {kind}")
