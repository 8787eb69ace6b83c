"""The page of a report on experiments: it says first what voids it, then what was found; it trusts no text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from infra.compare_charts import ForestRow, decades, forest_marks, gain, labelled, overlap, share_axis, span, svg
from infra.compare_page import address, page
from infra.compare_tables import by_worth, noise_table
from infra.compare_words import either_way, signed, volume, worth, worth_interval
from infra.comparison import Band, Change, Comparison, Report, Sample
from infra.experiment_arms import Volume, Yield
from infra.experiment_results import ArmNoise, Bounds, Results, VerdictName
from infra.local_store import LocalStore
from proxy_eval.effects import share_of_tokens
from tests.infra.test_ablate import Trainer, experiment, planned, run
from tests.proxy_eval.pools import numbered, pool_of

HOSTILE = "</svg></style><script>alert(1)</script><img src=x onerror=alert(1)>\u202e&amp;\"'"
TASKS = ("arc_easy", "copa", "hellaswag", "piqa")
DOMAINS = ("arxiv", "books", "code", "forums", "news", "recipes", "subtitles", "wikipedia")
FAMILIES = ("c4.lines", "fineweb.line_punctuation", "gopher_quality.words", "gopher_repetition.duplicate_line_fraction")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("experiment")
    pool = pool_of(folder / "pool", [None, *(numbered(at) for at in range(399))])
    plan = planned(experiment(pool, folder), pool)
    found, _ = run(plan, LocalStore(folder / "out"), Trainer(plan))
    return found


def around(middle: float, half: float) -> Bounds:
    """An interval; beyond half and twice the tokens it has no bound."""
    low, high = middle - half, middle + half
    return Bounds(estimate=middle, low=low if low > -1 else None, high=high if high < 1 else None)


def in_shares(bounds: Bounds) -> Bounds:
    ends = (bounds.estimate, bounds.low, bounds.high)
    estimate, low, high = (None if one is None else float(share_of_tokens(np.asarray(one))) for one in ends)
    return Bounds(estimate=estimate, low=low, high=high)


def full(results: Results, count: int) -> Results:
    """The results with `count` arms made of its first, with domains, tasks and a calibration."""
    draw = np.random.default_rng(count)
    arms = []
    for at in range(count):
        worth = float(0.12 * draw.standard_t(3))
        found = around(worth, float(0.03 + 0.1 * draw.random() ** 2 + 1.5 * (at % 17 == 5)))
        assert found.estimate is not None
        verdict: VerdictName = "UNDECIDED"
        if found.low is not None and found.low > 0.0144:
            verdict = "KEEP"
        elif found.high is not None and found.high < -0.0144:
            verdict = "REJECT"
        elif at % 9 == 4:
            verdict, found = "NEUTRAL", around(0.001, 0.01)
        removed = Volume(documents=int(10 ** draw.uniform(1, 4)), tokens=int(10 ** draw.uniform(3, 6)))
        at_all = Volume(documents=3 * removed.documents, tokens=3 * removed.tokens)
        name = f"{FAMILIES[at % 4]}_{at}" if at else HOSTILE if count > 3 else "fineweb.short_lines"
        arms.append(
            replace(
                results.arms[0],
                name=name,
                verdict=verdict,
                tokens=2_000_000,
                doublings=found,
                share=in_shares(found),
                gold=around(0.1 * worth, 0.01),
                shrunk=0.8 * worth,
                yields=Yield(lost=Volume(documents=0, tokens=0), gained=removed, alone=removed, at_all=at_all),
                domains={one: around(0.1 * worth + float(draw.normal(0, 0.01)), 0.012) for one in DOMAINS},
                tasks={
                    f"{task}/{metric}": around(0.1 * worth, 0.02)
                    for task in TASKS
                    for metric in ("acc", "bits_per_byte")
                },
                next_look={"cost": {"runs": 3, "tokens": 3.3e6, "hours": 0.2, "money": 0.0}, "seeds": 4}
                if verdict == "UNDECIDED"
                else None,
                matched=around(0.3 * worth, 0.05) if at == 1 else None,
                against_matched=around(0.7 * worth, 0.07) if at == 1 else None,
                noise=ArmNoise(deviation=0.009, others=0.003, p_value=1e-4, noisier=True) if at == 2 else None,
                epochs=1.7 if at == 1 else 0.4,
            )
        )
    return replace(
        results,
        arms=tuple(arms),
        rungs=tuple(replace(rung, calibration=calibration()) for rung in results.rungs),
        notes=("1M x 1,000 tokens: one learning rate",),
    )


def calibration() -> dict[str, object]:
    rates = (2.5e-4, 5e-4, 1e-3, 2e-3)
    return {
        "learning_rate": 5e-4,
        "rates": [
            {
                "learning_rate": rate,
                "effect": None if rate == 2e-3 else -0.01 * at,
                "standard_error": 0.002 * at,
                "snr": None if rate == 2e-3 else 5.0 / at,
                "spread": 0.004,
            }
            for at, rate in enumerate(rates, start=1)
        ],
    }


def band(level: float, seed: int, last: int = 1_000) -> Band:
    tokens = np.linspace(last / 200, last, 200)
    mean = 9 * (tokens / last + 0.02) ** -0.15 - 4 + level + np.random.default_rng(seed).normal(0, 0.01, 200)
    return Band(
        tokens=tuple(tokens.astype(int).tolist()),
        mean=tuple(mean.tolist()),
        low=tuple((mean - 0.03).tolist()),
        high=tuple((mean + 0.03).tolist()),
    )


def report(results: Results, text: str = "Buy now.\nBuy now.") -> Report:
    curves = {"control": band(0.0, 0)} | {
        arm.name: band(0.1 * (arm.doublings.estimate or 0.0), at) for at, arm in enumerate(results.arms, start=1)
    }
    sample = Sample(key="00ff", url="https://example.org/a?b=1&c=2", rules=("c4.lines",), text=text)
    return Report(
        place="out/experiment",
        results=results,
        curves={rung.number: curves for rung in results.rungs},
        samples={arm.name: (sample, sample) for arm in results.arms},
        repeat=("gristmill ablate experiment.yaml --out out/experiment", "# pool 0123456789abcdef"),
    )


class Elements(HTMLParser):
    """Start tags and attributes as a browser has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.found if name == tag)


@pytest.fixture(scope="module")
def three(results: Results) -> str:
    return page(Comparison(reports=(report(full(results, 3)),)))


@pytest.fixture(scope="module")
def sixty(results: Results) -> str:
    return page(Comparison(reports=(report(full(results, 60), text=HOSTILE),)))


def texts(html: str) -> str:
    return "".join(Elements(html).text)


def test_sixty_arms_are_a_page_below_two_megabytes_that_loads_nothing_and_runs_nothing(sixty: str) -> None:
    assert len(sixty.encode()) < 2_000_000
    elements = Elements(sixty)
    assert not {"script", "iframe", "object", "img", "link", "base", "form"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "src"], tag
        assert "javascript:" not in (attributes.get("href") or "")
    (policy,) = (one["content"] for one in elements.of("meta") if "http-equiv" in one)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "@import" not in sixty and not re.search(r"url\((?!#)", sixty)


def test_what_others_wrote_is_text_wherever_it_stands(results: Results) -> None:
    made = full(results, 3)
    arm = replace(made.arms[0], name=HOSTILE, mask=HOSTILE, reason=HOSTILE, verdict="UNDECIDED")
    arm = replace(arm, domains={HOSTILE: around(0.1, 0.2)}, tasks={f"{HOSTILE}/acc": around(0.1, 0.2)})
    made = replace(made, name=HOSTILE, says=HOSTILE, faults=(HOSTILE,), notes=(HOSTILE,), arms=(arm,), status="void")
    made = replace(made, rungs=tuple(replace(rung, name=HOSTILE, spread={HOSTILE: 1.0}) for rung in made.rungs))
    one = replace(report(made, HOSTILE), place=HOSTILE, repeat=(HOSTILE,), notes=(HOSTILE,))
    sample = Sample(key=HOSTILE, url=HOSTILE, rules=(HOSTILE,), text=HOSTILE)
    one = replace(one, samples={HOSTILE: (sample,)})
    changes = (Change(arm=HOSTILE, before=arm, after=None, note=HOSTILE),)
    found = page(Comparison(reports=(one, replace(one, curves={})), changes=changes))
    elements = Elements(found)
    assert not {"script", "img"} & {tag for tag, _ in elements.found}
    assert "\u202e" not in found and "\\u{202e}" in found
    names = {name for _, attributes in elements.found for name in attributes}
    assert "onerror" not in names


@pytest.mark.full
def test_ids_are_of_one_element_each_and_every_link_within_the_page_has_its_end(results: Results) -> None:
    one = report(full(results, 3))
    elements = Elements(page(Comparison(reports=(one, one))))
    ids = [str(attributes["id"]) for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    ends = {str(one["href"])[1:] for one in elements.of("a") if str(one["href"]).startswith("#")}
    clips = {found[5:-1] for _, one in elements.found if (found := one.get("clip-path"))}
    assert ends and clips and ends | clips <= set(ids)


def test_a_page_is_the_same_each_time(results: Results, three: str) -> None:
    assert page(Comparison(reports=(report(full(results, 3)),))) == three


def test_faults_stand_before_everything_and_no_verdict_holds(results: Results) -> None:
    void = replace(full(results, 3), status="void", faults=("random came out KEEP: run more seeds.",))
    found = page(Comparison(reports=(replace(report(void), curves={}),)))
    said = texts(found).split("</style>")[-1]
    assert said.index("VOID") < said.index("random came out KEEP") < said.index("Asked:") < said.index("Leaderboard")
    assert "Answer: none" in said and "✗ failed" in said
    struck = re.findall(r'<(s|span) class="badge', found)
    assert struck.count("s") == len(void.arms)


def test_sections_follow_the_question_and_those_without_data_are_left_out(results: Results, three: str) -> None:
    wanted = ["Leaderboard", "Effects", "Curves", "Domains", "Yield", "Tasks", "Noise and placebos", "Learning rates",
              "Cost", "What rules removed", "To repeat it"]  # fmt: skip
    assert re.findall("<h2>([^<]+)</h2>", three) == wanted
    bare = replace(report(results), curves={}, samples={})
    bare = replace(bare, results=replace(results, arms=tuple(replace(arm, tasks={}) for arm in results.arms)))
    assert set(wanted) - set(re.findall("<h2>([^<]+)</h2>", page(Comparison(reports=(bare,))))) == {
        "Tasks", "What rules removed",
    }  # fmt: skip


def test_an_experiment_that_no_look_has_met_is_a_page(results: Results) -> None:
    nothing = Bounds(estimate=None, low=None, high=None)
    arms = tuple(
        replace(arm, rung=None, seeds=0, verdict="UNDECIDED", doublings=nothing, gold=nothing, shrunk=None, noise=None,
                domains={}, tasks={}, runs=(), next_look=None)
        for arm in (*results.arms, *results.placebos)
    )  # fmt: skip
    begun = replace(results, status="running", arms=arms[:3], placebos=arms[3:], rungs=())
    said = texts(page(Comparison(reports=(replace(report(begun), curves={}, samples={}),))))
    assert "So far" in said and "has not run yet" in said and "not measured" in said


def test_every_arm_has_its_verdict_as_a_sign_and_a_word_the_best_first(results: Results, sixty: str) -> None:
    board = sixty[sixty.index('aria-label="leaderboard"') : sixty.index('<section id="effects"')]
    shown = re.findall(r'class="badge \w+">(.) (\w+)<', board)
    arms = by_worth(full(results, 60).arms)
    assert [word for _, word in shown] == [arm.verdict for arm in arms]
    assert len(set(shown)) == len({word for _, word in shown}) == 4
    known = [arm.doublings.estimate for arm in arms]
    assert all(one is not None and other is not None and one >= other for one, other in zip(known, known[1:]))  # noqa: B905
    assert "scatter 3.0 times" in board


def test_few_arms_have_numbers_in_the_heat_map_and_many_only_when_pointed_at(three: str, sixty: str) -> None:
    for html, numbers in ((three, True), (sixty, False)):
        cells = re.findall(r'<td class="h(-?\d)" title="([^"]+)">([^<]*)</td>', html)
        assert len(cells) == len(DOMAINS) * (3 if numbers else 60)
        assert any(any(char.isdigit() for char in shown) for *_, shown in cells) is numbers
        assert {int(level) for level, *_ in cells} <= set(range(-4, 5))
        for level, title, _ in cells:
            said = float(title.rsplit(": ", 1)[1].split(" ")[0].replace("\u2212", "-"))
            assert int(level) * said >= 0


def test_a_lower_training_loss_is_not_said_to_be_worth_anything(three: str) -> None:
    assert "this says nothing of what the rule is worth" in three and "above 0 it helps" not in three


def test_noise_that_no_pilot_measured_is_said_to_be_planned(results: Results) -> None:
    (rung, *_) = results.rungs
    assert rung.fixed.rho_low is not None and "no pilot" not in noise_table([rung])
    guessed = replace(rung, fixed=replace(rung.fixed, rho_low=None, rho_high=None))
    cells = dict(re.findall(r"<tr><th>([^<]+)</th><td[^>]*>(.*?)</td></tr>", noise_table([guessed])))
    told = {title for title, said in cells.items() if "as planned, no pilot" in said}
    assert told == {
        "rho, runs of one seed", "spread of a run over seeds", "gain by twice the tokens",
        "the same, with the noise measured",
    }  # fmt: skip


def test_of_many_arms_the_extremes_have_curves_and_the_page_says_so(three: str, sixty: str) -> None:
    assert "The 3 best and the 3 worst of 60 arms" in sixty and "best and the" not in three
    key = sixty[sixty.index('class="key lines"') :].split("</p>")[0]
    assert key.count("<span") == 7


def test_tasks_are_columns_where_there_are_more_arms_and_rows_where_there_are_fewer(three: str, sixty: str) -> None:
    for html, arms, columns in ((three, 3, 3), (sixty, 60, 2 * len(TASKS))):
        table = html[html.index('aria-label="tasks"') :].split("</table>")[0]
        assert table.count('<th class="n">') == columns and table.count("<td ") == arms * 2 * len(TASKS)


def test_only_an_address_of_the_web_becomes_a_link_and_a_link_says_nothing_of_where_it_was_followed() -> None:
    good = address('https://example.org/a?b="1"&c=2')
    assert good.startswith(
        '<a href="https://example.org/a?b=&quot;1&quot;&amp;c=2" rel="noopener noreferrer nofollow">'
    )
    for bad in (
        "javascript:alert(1)",
        "data:text/html,x",
        "//example.org",
        "http://[",
        "https://\u202eexample.org",
        "x",
    ):
        assert "<a" not in address(bad) and address(bad)
    assert address(None) == ""


def test_two_experiments_are_put_side_by_side_changed_verdicts_first(results: Results) -> None:
    first, second = full(results, 3), full(results, 4)
    arm = second.arms[0]
    other = replace(arm, verdict="NEUTRAL" if arm.verdict != "NEUTRAL" else "KEEP")
    changes = (
        Change(arm="same here", before=arm, after=arm, note="other pool"),
        Change(arm="new", before=None, after=arm, note=""),
        Change(arm="moved", before=arm, after=other, note=""),
    )
    found = page(Comparison(reports=tuple(replace(report(one), curves={}) for one in (first, second)), changes=changes))
    said = texts(found)
    assert "1 verdict of 3 arms differ" in said and "other pool" in said
    assert said.index("moved changed") < said.index("same here")
    assert found.index('aria-label="changes"') < found.index('aria-label="leaderboard"')


def test_worth_is_a_share_of_the_tokens_and_what_lies_beyond_the_curve_says_so() -> None:
    assert worth(math.log2(1.031)).replace("\u202f", " ") == "+3.1 %"
    assert worth(-0.00001).startswith("0.0") and worth(None) == "?"
    beyond = Bounds(estimate=1.0, low=0.2, high=None)
    assert [one.replace("\u202f", " ") for one in (worth(1.0), worth_interval(beyond))] == [
        "&gt; +100 %", "[+14.9 %, &gt; +100 %]",
    ]  # fmt: skip
    assert "&lt; \u221250" in worth_interval(Bounds(estimate=0.0, low=None, high=0.0))
    assert [either_way(share).replace("\u202f", " ") for share in (0.01, 0.0004)] == ["±1 %", "±0.04 %"]
    assert signed(None) == "\u2013" and signed(-0.04) == "0.0" and signed(-1.25, 2) == "\u22121.25"
    assert [volume(count) for count in (0, 999, 1_000, 999_960, 1_250_000)] == ["0", "999", "1k", "1M", "1.25M"]


def test_an_axis_holds_every_estimate_and_few_wide_intervals_do_not_shrink_the_others() -> None:
    narrow = [around(0.02 * at, 0.01) for at in range(-8, 9)]
    low, high = span([*narrow, around(0.0, 2.0), around(0.0, 0.9)], 0.0144)
    assert low < -0.16 and 0.16 < high < 0.3
    low, high = span([around(0.1, 0.5), around(-1.0, 0.4)], 0.0144)
    assert 0.6 < high < 0.7 and -0.5 < low < -0.4
    for ends in ((low, high), (-0.05, 0.04), (-1.0, 1.0), (-0.003, 0.002)):
        for count in (5, 9):
            ticks = share_axis(ends, count)["values"]
            assert 1 <= len(ticks) <= count and 0.0 in ticks
            assert all(ends[0] <= tick <= ends[1] for tick in ticks)


def test_an_interval_that_goes_on_has_an_arrow_and_ends_with_the_picture() -> None:
    row = ForestRow(name="a", kind="KEEP", bounds=Bounds(estimate=0.5, low=0.1, high=None), said="", short="")
    unknown = replace(row, bounds=Bounds(estimate=None, low=None, high=None))
    bars, points, arrows = forest_marks([row, unknown], [10.0, 20.0], (-0.1, 0.2))
    assert [(bar["x"], bar["x2"]) for bar in bars] == [(0.1, 0.2)] and [point["x"] for point in points] == [0.2]
    assert arrows["left"] == [] and [arrow["x"] for arrow in arrows["right"]] == [0.2]


def test_a_gain_is_above_zero_where_the_rule_lowers_the_loss_on_either_side() -> None:
    control = Band(tokens=(10, 20, 30), mean=(3.0, 2.0, 1.0), low=(2.9, 1.9, 0.9), high=(3.1, 2.1, 1.1))
    arm = Band(tokens=(15, 25, 35), mean=(2.4, 1.4, 0.0), low=(2.3, 1.3, 0.0), high=(2.5, 1.5, 0.0))
    found = gain(arm, control, 1.0)
    assert found.tokens == (25,)
    assert (
        found.mean == pytest.approx((0.1,))
        and found.low == pytest.approx((0.0,))
        and found.high == pytest.approx((0.2,))
    )
    turned = gain(arm, control, -1.0)
    assert turned.mean == pytest.approx((-0.1,)) and turned.low == pytest.approx((-0.2,))


def test_names_in_a_scatter_lie_on_no_other_name() -> None:
    draw = np.random.default_rng(1)
    rows = [
        {"name": f"rule_{at}", "x": float(10 ** draw.uniform(-3, -1)), "y": float(draw.normal(0, 0.1))}
        for at in range(60)
    ]
    found = labelled(rows, (1e-3, 1e-1), (-0.4, 0.4), 900, 300)
    assert 5 < len(found) < 60
    boxes = []
    for row in found:
        x, y = 900 * math.log10(row["x"] / 1e-3) / 2, 300 * (0.4 - row["y"]) / 0.8
        wide = 6 * len(row["name"])
        boxes.append(
            (x + 6, x + 6 + wide, y - 6, y + 6) if row["align"] == "left" else (x - 6 - wide, x - 6, y - 6, y + 6)
        )
    assert not any(overlap(one, other) for at, one in enumerate(boxes) for other in boxes[:at])


def test_ticks_of_shares_are_few_and_round() -> None:
    assert decades((0.004, 0.3)) == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    assert decades((1e-5, 0.9)) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]


def test_a_drawing_names_its_clips_after_itself_and_keeps_its_colours_as_variables() -> None:
    point = {"data": {"values": [{"x": 0.123456}]}, "mark": {"type": "point", "clip": True, "color": "var(--ink)"}}
    spec = {"width": 50, "height": 50, **point, "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    first, again = svg(spec, "one"), svg(spec, "one")
    assert first == again and 'id="one-0"' in first and "url(#one-0)" in first and "var(--ink)" in first
    assert not re.search(r'transform="[^"]*\.\d\d', first)
