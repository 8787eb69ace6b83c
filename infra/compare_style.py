"""The style of a report on experiments: one set of names for its colours, with values for light and for dark."""

from __future__ import annotations

LIGHT = """
--page: #fff; --ink: #1d2329; --soft: #5a6570; --line: #d5dbe1; --fill: #eaeef2; --fault: #b00020; --link: #1f5f9f;
--keep: #01665e; --reject: #a6430a; --neutral: #3f66a0; --undecided: #6f6a5f;
--c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0508f; --c4: #8a6d00; --c5: #2f9fd8; --c6: #7a4fbf; --c7: #6b6b6b;
"""
DARK = """
--page: #14181c; --ink: #e6eaee; --soft: #9aa5b1; --line: #38414a; --fill: #2a323a; --fault: #ff6b7a; --link: #7fb5ee;
--keep: #4fc3b4; --reject: #f2935a; --neutral: #8fb3e0; --undecided: #b5ae9f;
--c0: #56a9e8; --c1: #f28c4b; --c2: #35c79a; --c3: #e08cc4; --c4: #d9b93b; --c5: #8fd0f5; --c6: #b497ee; --c7: #a8a8a8;
"""
"""Verdicts are told apart by sign and word as well. Lines are in the colours of Okabe & Ito (2008), darker on white."""

HEAT = ("#8c510a", "#bf812d", "#dfc27d", "#f6e8c3", None, "#c7eae5", "#80cdc1", "#35978f", "#01665e")
"""From -4 to 4: the diverging scheme BrBG of ColorBrewer, which the colour-blind tell apart; nothing is the page's."""

STYLE = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
""" + """
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1032px; margin: 0 auto; padding: 1.5rem 16px 4rem;
  color: var(--ink); background: var(--page); overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4rem 0 }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .3rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem }
p { margin: .35rem 0; max-width: 80ch }
p.answer { font-size: 1.15rem }
p.says, figcaption, small, .key { color: var(--soft) }
p.says, figcaption, .key { font-size: .87rem; max-width: none }
small { font-size: .85em }
a { color: var(--link) }
nav { margin: 1rem 0; font-size: .9rem; line-height: 1.9 }
nav a { margin-right: 1.1em; text-decoration: none; display: inline-block }
.fault { border: 2px solid var(--fault); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0; max-width: none }
.fault b, .warns { color: var(--fault) }
.fault ul { margin: .2rem 0; padding-left: 1.2em }

figure { margin: 1rem 0 }
figure svg { display: block }
figure svg text { paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round }
.desk, .phone { overflow: hidden }
.phone { display: none }
.pair { display: grid; grid-template-columns: 490px 490px; gap: 0 20px }

.box { overflow: auto; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); margin: .6rem 0 }
.tall { max-height: 80vh }
table { border-collapse: separate; border-spacing: 0; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; font-weight: normal;
  border-bottom: 1px solid var(--line); background: var(--page) }
tbody tr:last-child > * { border-bottom: 0 }
thead th { color: var(--soft); position: sticky; top: 0; z-index: 1 }
tr > th:first-child { position: sticky; left: 0; min-width: 10rem; max-width: 20rem; overflow-wrap: anywhere }
thead tr > th:first-child { z-index: 2 }
th.n, td.n { text-align: right }
td.n { white-space: nowrap }
.prose { min-width: 12rem }
.leaders td:last-child { min-width: 10rem }
.facts td.n { white-space: normal }
thead small { white-space: nowrap }
* + header { margin-top: 4rem; border-top: 3px solid var(--ink); padding-top: 1rem }
.leaders td.n small, .tasks .n small { display: block }
.badge { font-size: 12px; font-weight: 600; border: 1.5px solid; border-radius: 4px; padding: 0 .4em;
  white-space: nowrap }
.KEEP { color: var(--keep) }
.REJECT { color: var(--reject) }
.NEUTRAL { color: var(--neutral) }
.UNDECIDED { color: var(--undecided); border-style: dashed }

.heat table { font-size: 12.5px }
.heat td { text-align: center; min-width: 4.6rem; padding: .3rem .2rem; border: 0 }
.heat thead th { text-align: center; padding: .3rem .2rem; max-width: 7rem; overflow-wrap: anywhere }
.heat tbody th { padding-right: .8rem; border: 0 }
.dense td, .dense tbody th { padding-block: 0; line-height: 1.35 }
.key i { font-style: normal; display: inline-block; margin-right: 1em }
.key span { display: inline-block; width: 1.7em; height: .8em; margin-right: .35em; vertical-align: baseline }
.key.lines span { height: 3px; vertical-align: middle }
.heat + .key { white-space: nowrap }
.heat + .key i { margin-right: .2em }
.heat + .key span { width: 1.4em }
.h-4, .h4 { color: #fff }
.h-3, .h-2, .h-1, .h1, .h2, .h3 { color: #000 }
.h0 { background: var(--fill) }

details { border-bottom: 1px solid var(--line); padding: .3rem 0 }
summary { cursor: pointer }
blockquote { margin: .6rem 0 1rem; padding-left: .9rem; border-left: 3px solid var(--line) }
blockquote p { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate }
pre { overflow-x: auto; background: var(--fill); padding: .7rem; font-size: 12.5px; border-radius: 4px }

@media (max-width: 1031px) {
  .desk { display: none }
  .phone, .pair { display: block }
  tr > th:first-child { min-width: 7rem; max-width: 9rem; font-size: 12.5px }
  .facts tr > th:first-child { min-width: 9rem }
  .leaders td:last-child { min-width: 22rem }
  .changes th, .changes td { padding-right: .4rem }
}
@media (min-width: 1032px) { .heat + .key i { margin-right: .6em } }
@media (min-width: 1270px) { .leaders:not(.changes) { margin-right: -124px } }
@media (min-width: 720px) and (max-width: 1031px) { .pair { display: grid; grid-template-columns: 1fr 1fr } }
""" + "".join(f".h{at} {{ background: {colour} }}\n" for at, colour in enumerate(HEAT, start=-4) if colour)  # fmt: skip
