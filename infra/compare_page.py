"""`gristmill compare --html`: one file that says what was asked of the rules, what came out, and on what it rests.

It holds its charts as SVG, runs no script and loads nothing. Names, texts and addresses come from recipes, panels and
crawled pages: all of them are escaped, and only http(s) addresses become links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from urllib.parse import urlsplit

from infra.compare_charts import (
    HALF,
    Dot,
    ForestRow,
    bands,
    endpoints,
    figure,
    forest,
    gain,
    learning_rates,
    scatter,
    strip,
)
from infra.compare_style import STYLE
from infra.compare_tables import (
    by_worth,
    changes_table,
    cost_table,
    heat_map,
    hours,
    leaderboard,
    metric_table,
    noise_table,
    placebo_table,
    rate_table,
    tasks_table,
)
from infra.compare_words import either_way, listed, metric_words, name, several, text, volume, worth, worth_interval
from infra.comparison import Comparison, Report, Sample, deciding_runs
from infra.experiment_results import ArmResult, Bounds, Results, RungResult
from infra.repetition import comment
from infra.terminal import visible
from proxy_eval.experiment import CONTROL
from proxy_eval.verdict import rope_in_doublings

MANY, EXTREMES = 8, 3
"""Arms up to which all have a curve; of more, so many of the best and of the worst have one."""


def page(comparison: Comparison) -> str:
    """The page of one experiment, or of two: what changed first, then each by itself."""
    reports, alone = comparison.reports, len(comparison.reports) == 1
    title = " against ".join(text(one.results.name) for one in reports)
    top = "" if alone else both(comparison, title)
    body = top + "".join(report_sections(one, "" if alone else f"r{at}-") for at, one in enumerate(reports, start=1))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}: verdicts</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def both(comparison: Comparison, title: str) -> str:
    """Two experiments side by side."""
    first, second = (one.results for one in comparison.reports)
    moved = sum(
        one.before is not None and one.after is not None and one.before.verdict != one.after.verdict
        for one in comparison.changes
    )
    void = [one.name for one in (first, second) if one.status == "void"]
    warned = f'<p class="fault"><b>⚠ VOID: {listed(void)}. Its verdicts do not hold.</b></p>' if void else ""
    differ = f"{several(moved, 'verdict')} of {several(len(comparison.changes), 'arm')} differ."
    note = (
        "Each interval holds at every look of its own experiment; the last column says whether both are of one thing."
    )
    return (
        f'<h1>{title}</h1>{warned}<p class="answer">{differ}</p>{changes_table(comparison.changes, (first, second))}'
        f'<p class="says">First: {text(first.name)}; second: {text(second.name)}. {note}</p>'
    )


def report_sections(report: Report, prefix: str) -> str:
    """One report, from the answer to what repeats it; ids begin with the prefix."""
    sections = {
        "Leaderboard": leaders(report.results),
        "Effects": forest_section(report.results, prefix),
        "Curves": "".join(curve_section(report, rung, prefix) for rung in report.results.rungs),
        "Domains": domain_section(report.results),
        "Yield": yield_section(report.results, prefix),
        "Tasks": task_section(report.results),
        "Noise and placebos": noise_section(report.results, prefix),
        "Learning rates": "".join(rate_section(rung, prefix) for rung in report.results.rungs),
        "Cost": cost_section(report.results),
        "What rules removed": sample_section(report.samples),
        "To repeat it": repeat_section(report),
    }
    shown = {f"{prefix}{title.split()[0].lower()}": (title, body) for title, body in sections.items() if body}
    links = "".join(f'<a href="#{at}">{title}</a>' for at, (title, _) in shown.items())
    every = "".join(f'<section id="{at}"><h2>{title}</h2>{body}</section>' for at, (title, body) in shown.items())
    return f"<header>{head(report)}</header><nav>{links}</nav>{every}"


def head(report: Report) -> str:
    """Faults, the question, the answer."""
    results = report.results
    faults = ""
    if results.faults:
        items = "".join(f"<li>{text(fault)}</li>" for fault in results.faults)
        faults = f'<div class="fault" role="alert"><b>⚠ VOID: no verdict below holds.</b><ul>{items}</ul></div>'
    notes = "".join(f"<li>{text(note)}</li>" for note in (*results.notes, *report.notes))
    return (
        f"<h1>{text(results.name)}</h1>{faults}"
        f"<p>{asked(results)}</p><p class=\"answer\">{answer(results)}</p>"
        + (f'<p class="says">{text(results.says)}</p>' if results.says else "")
        + (f'<details class="says"><summary>{several(len(notes.split("<li>")) - 1, "note")}</summary><ul>{notes}</ul>'
           "</details>" if notes else "")
    )  # fmt: skip


def asked(results: Results) -> str:
    """What was asked, in a sentence."""
    last = results.rungs[-1] if results.rungs else None
    models = "" if last is None else f" for {text(last.size)} models on {volume(last.tokens)} tokens"
    return (
        f"Asked: what is each of {several(len(results.arms), 'arm')} worth, as a share of the training tokens, by "
        f"{metric_words(results.metric)}{models}, where less than {either_way(results.rope)} (the ROPE) does not "
        f"matter and any verdict at all may be wrong with probability {results.error:g}?"
    )


def answer(results: Results) -> str:
    """What came out, in a sentence."""
    by = {
        verdict: [arm.name for arm in by_worth(results.arms) if arm.verdict == verdict]
        for verdict in ("KEEP", "REJECT", "NEUTRAL", "UNDECIDED")
    }
    if results.status == "void":
        return "Answer: none, for a placebo failed."
    parts = []
    if by["KEEP"]:
        parts.append(f'<b class="KEEP">keep</b> {listed(by["KEEP"])}')
    if by["REJECT"]:
        parts.append(f'<b class="REJECT">reject</b> {listed(by["REJECT"][::-1])}')
    if found := by["NEUTRAL"]:
        parts.append(f"{briefly(found)} make{'s' * (len(found) == 1)} no difference that matters")
    if found := by["UNDECIDED"]:
        parts.append(f"{briefly(found)} {'is' if len(found) == 1 else 'are'} undecided")
    said = "; ".join(parts)
    spent = (
        f"{several(results.actual.runs, 'run')}, {volume(results.actual.tokens)} tokens, {hours(results.actual.hours)}"
    )
    return f"{'So far' if results.status == 'running' else 'Answer'}: {said} <small>({spent} of devices)</small>."


def briefly(names: Sequence[str]) -> str:
    """Their names where they are few, else how many they are."""
    return listed(names) if len(names) <= 3 else f"{len(names)}"


def leaders(results: Results) -> str:
    """The leaderboard with what its columns mean."""
    return leaderboard(results) + (
        '<p class="says">Worth: how many more tokens the control would need to do as well, with the rule minus '
        f"without it; in brackets what sets the verdict: all intervals hold at every look with probability "
        f"{1 - results.error:g}. Shrunk: the estimate, against the winner's curse. Gold answers: 10⁻³ bits per byte, "
        "higher is better, 95 %. FDR: the false discovery rate at which this arm and all below it would be called "
        "effects; TOST: p that the effect is beyond the ROPE; both of one look. Removes: what fails this rule and no "
        "other, and all that fails it.</p>"
    )


def forest_section(results: Results, prefix: str) -> str:
    """Every interval, placebos below."""
    rows = [row for arm in by_worth(results.arms) for row in forest_rows(arm, placebo=False)]
    rows += [row for arm in results.placebos for row in forest_rows(arm, placebo=True)]
    rope = rope_in_doublings(results.rope)
    return figure(
        f"{prefix}forest",
        f"Shaded: the ROPE, {either_way(results.rope)}. ▲ KEEP above it, ▼ REJECT "
        "below, ■ NEUTRAL inside, ○ UNDECIDED; arrow: goes on. Placebos last.",
        lambda width: forest(rows, rope, width),
    )


def forest_rows(arm: ArmResult, *, placebo: bool) -> Iterable[ForestRow]:
    """The row of an arm, and that of the random removal that is matched to it."""
    yield ForestRow(
        name=arm.name,
        kind=arm.verdict,
        bounds=arm.doublings,
        said=beside(arm.doublings),
        short=unescape(worth(arm.doublings.estimate)),
        placebo=placebo,
    )
    if arm.matched is not None:
        yield ForestRow(
            name="as many tokens at random",
            kind="matched",
            bounds=arm.matched,
            said=beside(arm.matched),
            short=unescape(worth(arm.matched.estimate)),
            placebo=placebo,
        )


def beside(bounds: Bounds) -> str:
    """An interval as text that stands in a chart."""
    return (
        "not measured" if bounds.estimate is None else unescape(f"{worth(bounds.estimate)}  {worth_interval(bounds)}")
    )


def curve_section(report: Report, rung: RungResult, prefix: str) -> str:
    """Training loss over tokens, how it differs with the rule, and the control's three endpoints."""
    results, curves = report.results, report.curves.get(rung.number, {})
    control = curves.get(CONTROL)
    arms = [arm for arm in by_worth(results.arms) if arm.name in curves]
    few = arms if len(arms) <= MANY else [*arms[:EXTREMES], *arms[-EXTREMES:]]
    colours = {arm.name: f"var(--c{at})" for at, arm in enumerate(few)} | {CONTROL: "var(--ink)"}
    shown = {CONTROL: control} if control is not None else {}
    shown |= {arm.name: curves[arm.name] for arm in few}
    begin = f"{prefix}rung{rung.number}"
    figures = [] if not shown else [figure(
        f"{begin}-loss", "Training loss: mean over seeds, and the range of seeds as a band.",
        lambda width: bands(shown, colours, "nats a token", width), width=HALF,
    )]  # fmt: skip
    if control is not None and any(curves[arm.name].tokens[0] <= control.tokens[-1] for arm in few):
        gains = {arm.name: gain(curves[arm.name], control, -1.0 if arm.rule_in == "base" else 1.0) for arm in few}
        gains = {arm: band for arm, band in gains.items() if band.tokens}
        figures.append(figure(
            f"{begin}-gain", "Training loss without the rule minus with it, each on the texts it reads: easier texts "
            "show as a gain, so this says nothing of what the rule is worth.",
            lambda width: bands(gains, colours, "difference, nats a token", width, zero=True), width=HALF,
        ))  # fmt: skip
    if all(any(value is not None for value in point.values) for point in rung.curve):
        figures.append(figure(
            f"{begin}-endpoints", "The control at ½, 1 and 2 budgets, a dot a seed; the curve turns gains into tokens.",
            lambda width: endpoints(results.metric, rung.curve, metric_title(results.metric), width), width=HALF,
        ))  # fmt: skip
    if not figures:
        return ""
    chosen = "" if len(few) == len(arms) else f"The {EXTREMES} best and the {EXTREMES} worst of {len(arms)} arms. "
    key = "".join(f'<i><span style="background:{colours[one]}"></span>{name(one)}</i>' for one in shown)
    title = f"<h3>{text(rung.name)}</h3>" * (len(results.rungs) > 1)
    return f'{title}<p class="key lines">{chosen}{key}</p><div class="pair">{"".join(figures)}</div>'


def metric_title(metric: str) -> str:
    """Of an axis."""
    return "bits per byte" if metric == "gold" or metric.startswith("panel") else unescape(metric_words(metric))


def domain_section(results: Results) -> str:
    """The heat map of domains."""
    rows = [(arm.name, arm.domains) for arm in by_worth(results.arms) if arm.domains]
    if not rows:
        return ""
    return heat_map(rows, label="domains") + (
        '<p class="says">10⁻³ bits per byte of each domain of the panel: green is better with the rule, brown worse. '
        "A dot: the 95 % interval leaves out 0, as one in twenty does by luck. Point at a cell for its interval.</p>"
    )


def yield_section(results: Results, prefix: str) -> str:
    """What rules remove against what they are worth."""
    control = results.control.tokens
    dots = []
    for arm in results.arms:
        moved = max(arm.yields.lost.tokens, arm.yields.gained.tokens)
        if moved > 0 and arm.doublings.estimate is not None:
            share = moved / max(control, arm.tokens)
            dots.append(Dot(name=arm.name, kind=arm.verdict, share=share, bounds=arm.doublings))
    if not dots:
        return ""
    return figure(
        f"{prefix}yield-worth",
        "Worth over the share of the tokens that stand on one side only, the arm's or the control's. Signs, lines and "
        "shading as above; names where there is room.",
        lambda width: scatter(dots, rope_in_doublings(results.rope), width),
    )


def task_section(results: Results) -> str:
    """The table of tasks."""
    arms = [arm for arm in by_worth(results.arms) if arm.tasks]
    if not arms:
        return ""
    over = "over seeds and items" if all(arm.resampled for arm in arms) else "over seeds, not yet over items"
    return tasks_table(arms) + (
        '<p class="says">With the rule minus without it, in points; bits per byte in thousandths, turned so that '
        f"higher is better. 95 % intervals of one look, {over}; bold where they leave out 0. No verdict reads them.</p>"
    )


def noise_section(results: Results, prefix: str) -> str:
    """Placebos, noise, and what each metric can tell."""
    if not results.rungs:
        return placebo_table(results)
    last = results.rungs[-1]
    runs = {arm.name: deciding_runs(arm, last) for arm in (results.control, *results.placebos)}
    drawn = ""
    if any(run.metric is not None for every in runs.values() for run in every):
        drawn = figure(
            f"{prefix}spread",
            f"Runs at {text(last.name)}, a dot a seed, the mean as a tick. The control and <b>same</b> differ by seeds "
            "alone: how far apart they lie is luck.",
            lambda width: strip(results.metric, runs, metric_title(results.metric), width),
        )
    return (
        placebo_table(results) + drawn + noise_table(results.rungs) + metric_table(results.rungs)
        + '<p class="says">Rho decides whether the control shares the arms\' seeds (from 0.3 on). Spread: of a paired '
        "difference, or of a run where seeds are not shared. SNR: the largest difference between arms over it. "
        "Decision accuracy: how often a metric orders two arms as the verdicts' metric does at the last rung.</p>"
    )  # fmt: skip


def rate_section(rung: RungResult, prefix: str) -> str:
    """The calibration of a rung's learning rate, or that there is none."""
    rates = ", ".join(f"{rate:g}" for rate in rung.learning_rates)
    title = f"<h3>{text(rung.name)}: {rates}</h3>"
    if rung.calibration is None or not rung.calibration.get("rates"):
        return f'{title}<p class="says">Not calibrated here: the rates stand in the experiment\'s file.</p>'
    calibration = rung.calibration
    drawn = ""
    if any(rate["effect"] is not None for rate in calibration["rates"]):
        drawn = figure(
            f"{prefix}rate{rung.number}",
            "What removing shuffled documents brings, ± 1 standard error. Filled: the rate chosen, where it stands out "
            "most from the noise of seeds.",
            lambda width: learning_rates(calibration, width),
            width=HALF,
        )
    other = "" if rung.calibrated else " The experiment runs at another rate, which its file names."
    return f'{title}{drawn}{rate_table(rung)}<p class="says">In 10⁻³ bits per byte.{other}</p>'


def cost_section(results: Results) -> str:
    """Cost with its caption."""
    return cost_table(results) + (
        '<p class="says">Planned: all looks, no arm decided early. Device hours: what each run took; after a kill, up '
        "to its last checkpoint.</p>"
    )


def sample_section(samples: Mapping[str, tuple[Sample, ...]]) -> str:
    """What each rule removed, folded away."""
    found = "".join(
        f"<details><summary>{name(arm)}: {several(len(some), 'document')}</summary>"
        f"{''.join(map(excerpt, some))}</details>"
        for arm, some in samples.items()
        if some
    )
    note = "Documents that the rule removes and that stand on one side only; chosen by a hash, 600 characters of each."
    return f'<p class="says">{note}</p>{found}' if found else ""


def excerpt(sample: Sample) -> str:
    """A document that is not there any more."""
    rules = f"rejected by {', '.join(text(rule) for rule in sample.rules)}" if sample.rules else ""
    return f"<blockquote><p>{text(sample.text)}</p><small>{rules} {address(sample.url)}</small></blockquote>"


def address(url: str | None) -> str:
    """A link that tells nobody where it was followed, or the text of what is no address of a page."""
    if url is None:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return text(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or visible(url) != url:
        return text(url)
    return f'<a href="{escape(url)}" rel="noopener noreferrer nofollow">{text(url)}</a>'


def repeat_section(report: Report) -> str:
    """Commands and pins."""
    lines = [*report.repeat, comment(f"experiment {report.results.experiment_sha256}, at {report.place}")]
    return f"<pre>{text(chr(10).join(lines))}</pre>"
