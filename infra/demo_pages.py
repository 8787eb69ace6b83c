"""The demo crawl's pages that were written for it: what every crawl holds beside its good pages, and what breaks
readers.

Every text here is original, every host lies under a reserved top-level domain (RFC 2606); words that URL rules block
are read from the lists of the datatrove package and never stand in this file. A page is the pure outcome of its
arguments.
"""

from __future__ import annotations

import gzip
import html
import random
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal

import brotli

MIB = 1 << 20
BOMB_MIB = 300
HTML_TYPE = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPage:
    """One HTTP response. `body` is what lies on the wire after the HTTP headers; `media` what a crawler identified
    it as.

    `kind` says what the page is for: the demo's accounts are kept by it.
    """

    url: str
    kind: str
    body: bytes
    media: str = "text/html"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", HTML_TYPE),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the pages of one host have in common: their frame is the boilerplate an extractor must remove."""

    host: str
    name: str
    nav: tuple[str, ...]
    footer: str


QUERN = Site(
    host="docs.quern.example",
    name="Quern reference",
    nav=("Home", "Install", "Reference", "Tutorial", "Changes", "Search"),
    footer="Built from the sources of the installed release. Report an error in this page.",
)
HOPPER = Site(
    host="packages.hopper.example",
    name="Hopper package index",
    nav=("Browse", "Upload", "Sign in", "Register", "Help", "Sponsors"),
    footer="Hopper is a package index. Status: all systems operational. Contact us. Terms of use.",
)
MILLRACE = Site(
    host="licences.millrace.test",
    name="Millrace licence library",
    nav=("All licences", "Compare", "Ask a question", "About"),
    footer="The library keeps texts as they were shipped. It gives no advice.",
)
SLUICE = Site(
    host="mirror.sluice.example",
    name="Sluice mirror",
    nav=("Mirrors", "Status", "Archive", "Donate"),
    footer="A mirror of pages that others publish. Last sync complete.",
)
BABBLE = Site(
    host="voices.babble.example",
    name="Babble",
    nav=("Languages", "Sentences", "Names", "Contribute"),
    footer="Sentences in many languages. Share. Like. Follow.",
)


def framed(site: Site, title: str, article: str, lang: str = "en") -> bytes:
    """Return a whole UTF-8 page: the site's header, navigation and footer around `article`, which is HTML already."""
    links = "".join(f'<li><a href="/{name.lower().replace(" ", "-")}">{name}</a></li>' for name in site.nav)
    return (
        f'<!DOCTYPE html>\n<html lang="{lang}">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)} - {site.name}</title></head>\n<body>\n"
        f'<header><a class="logo" href="/">{site.name}</a><nav class="menu"><ul>{links}</ul></nav></header>\n'
        f'<main><article class="content">\n<h1>{html.escape(title)}</h1>\n{article}\n</article></main>\n'
        f'<footer class="footer"><p>{site.footer}</p></footer>\n</body>\n</html>\n'
    ).encode()


def paragraphs(texts: Sequence[str]) -> str:
    """Return each text as an escaped HTML paragraph."""
    return "\n".join(f"<p>{html.escape(text)}</p>" for text in texts)


def coded(page: DemoPage, coding: Literal["gzip", "br", "deflate", "chunked"]) -> DemoPage:
    """Return the page with its body under one more content coding (or the chunked transfer coding) and the header for
    it.
    """
    if coding == "chunked":
        cuts = [page.body[at : at + 4000] for at in range(0, len(page.body), 4000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts) + b"0\r\n\r\n"
        return replace(page, body=body, headers=(*page.headers, ("Transfer-Encoding", "chunked")))
    if coding == "gzip":
        body = gzip.compress(page.body, mtime=0)
    elif coding == "br":
        body = brotli.compress(page.body, quality=5)
    else:
        body = zlib.compress(page.body)
    return replace(page, body=body, headers=(*page.headers, ("Content-Encoding", coding)))


def in_charset(page: DemoPage, charset: str, *, says: bool = True) -> DemoPage:
    """Return a UTF-8 page in `charset`, characters it lacks as references; UTF-16 begins with its BOM.

    Without `says` neither the HTTP header nor the page names the charset: a reader has to guess.
    """
    text = page.body.decode().replace('<meta charset="utf-8">', f'<meta charset="{charset}">' if says else "")
    body = text.encode(charset.replace("utf-16", "utf-16-le"), "xmlcharrefreplace")
    if charset == "utf-16":
        body = b"\xff\xfe" + body
    content_type = f"text/html; charset={charset}" if says else "text/html"
    return replace(page, kind=f"charset:{charset}", body=body, headers=(("Content-Type", content_type),))


# --- what a crawl holds beside good pages -----------------------------------------------------------------------------

PROSE = (
    "The mill stands where the river bends, and in a wet year the wheel turns day and night.",
    "Farmers bring barley in the autumn and wheat when the roads are dry enough for a cart.",
    "A stone has to be dressed every few weeks, because a worn furrow heats the flour and spoils its taste.",
    "My grandfather said that you can hear a dull stone before you can feel it in the meal.",
    "We rebuilt the sluice last spring after the flood carried the old gate away.",
    "It took four people and a borrowed tractor to lift the new beam into its place.",
    "The bakery in the next village buys most of what we grind, and the rest is sold from the door.",
    "Nobody gets rich with a small mill, but there has not been a year in which it had to stand still.",
    "On the first Sunday of the month visitors may come in and watch the wheat being cleaned and ground.",
    "Children like the hopper best, since the grain sinks in the middle as if something were eating it.",
    "If you want to keep flour for long, keep it dry and cool and away from anything with a strong smell.",
    "This winter we will replace the belt of the elevator, which has been mended more often than is wise.",
)
FILLER = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua ut enim ad minim veniam quis nostrud exercitation"
)
OFFERS = (
    "cheap best buy discount online free shipping order now sale coupon deal price offer lowest limited today save big"
)
THINGS = ("flour sifter", "hand mill", "bread tin", "garden hose", "phone case", "desk lamp", "rain coat", "bike pump")
CODE = """\
function grind(grain) {
  return grain.map(crush);
}"""
NOTICES = (
    "Please enable JavaScript in your browser to see this page.",
    "This site uses cookies. By continuing to browse you agree to our privacy policy and terms of use.",
    "Your browser does not support Javascript, or it was switched off in the settings of the browser.",
)


def _spam(rng: random.Random) -> str:
    thing = rng.choice(THINGS)
    runs = (" ".join([thing, *rng.sample(OFFERS.split(), 6)]) for _ in range(rng.randint(60, 140)))
    return f"<p>{thing.title()}! {', '.join(runs)}</p>"


def _navigation(rng: random.Random) -> str:
    names = (f"{rng.choice(THINGS)} {number}" for number in range(rng.randint(40, 200)))
    return "<ul>" + "".join(f'<li><a href="/c/{name.replace(" ", "-")}">{name}</a></li>' for name in names) + "</ul>"


def _lorem(rng: random.Random) -> str:
    line = " ".join(rng.choices(FILLER.split(), k=12))  # in English prose, or the language rule would drop it first
    return f"{_story(rng)}<p>Lorem ipsum {line}.</p>"


def _code(rng: random.Random) -> str:
    return f"{_story(rng)}<pre><code>{html.escape(CODE)}</code></pre><p>The braces {{ and }} belong to the code.</p>"


def _javascript(rng: random.Random) -> str:
    return f"<noscript>{NOTICES[0]}</noscript>" + paragraphs([*NOTICES, *rng.sample(PROSE, rng.choice((0, 3, 9)))])


def _short(rng: random.Random) -> str:
    return paragraphs([rng.choice(PROSE), "Read more..."])


def _listing(rng: random.Random) -> str:
    rows = (f"<li>{rng.choice(THINGS)}, {rng.randint(2, 90)} in stock</li>" for _ in range(rng.randint(30, 120)))
    return f"<p>{rng.choice(PROSE)}</p><ul>{''.join(rows)}</ul>"


def _repeated(rng: random.Random) -> str:
    few = rng.sample(PROSE, 3)
    return paragraphs([rng.choice(few) for _ in range(rng.randint(12, 60))])


def _story(rng: random.Random) -> str:
    told = rng.sample(PROSE, len(PROSE))
    return paragraphs([" ".join(told[at : at + 3]) for at in range(0, len(told), 3)])


WRITERS = {
    "spam": _spam,
    "navigation": _navigation,
    "lorem": _lorem,
    "code": _code,
    "javascript": _javascript,
    "short": _short,
    "listing": _listing,
    "repeated": _repeated,
    "story": _story,
}


def written_pages(rng: random.Random, count: int) -> list[DemoPage]:
    """Return `count` original pages, the kinds of `WRITERS` in turn: most of them are there to be dropped."""
    kinds = list(WRITERS.items())
    pages = []
    for number in range(count):
        kind, write = kinds[number % len(kinds)]
        site = replace(SLUICE, host=f"{kind}-{number % 7}.bran.example", name=f"Bran {kind}")
        title = f"{rng.choice(THINGS).capitalize()} {number}"
        url = f"https://{site.host}/{kind}/{number}.html"
        pages.append(DemoPage(url=url, kind=kind, body=framed(site, title, write(rng))))
    return pages


def copied(page: DemoPage, number: int) -> DemoPage:
    """Return the same bytes under another URL."""
    return replace(page, url=f"https://{SLUICE.host}/copy/{number}/", kind="copy")


def near_copied(page: DemoPage, number: int, rng: random.Random) -> DemoPage:
    """Return an edit of a UTF-8 page: up to one paragraph in 20 dropped, a word here and there replaced, a line
    added.
    """
    first, *rest = re.split(r"(?=<p>)", page.body.decode())
    kept = [part for part in rest if rng.random() > 0.05 or not part.rstrip().endswith("</p>")]
    edited = [part.replace(" the ", " this ", 1) if rng.random() < 0.1 else part for part in kept]
    line = f"<p>Copied by reader {number}, who kept this page because {rng.choice(PROSE).lower()}</p>\n"
    body = "".join([first, *edited[:2], line, *edited[2:]]).encode()
    return replace(page, url=f"https://{SLUICE.host}/near/{number}/", kind="near_copy", body=body)


def answers(rng: random.Random, count: int) -> list[DemoPage]:
    """Return `count` responses that are no good page: redirects, errors, and bodies that are no HTML, in turn."""
    host = "www.chaff.example"
    binary = (
        ("image/png", b"\x89PNG\r\n\x1a\n" + rng.randbytes(3000)),
        ("application/pdf", b"%PDF-1.7\n" + rng.randbytes(9000) + b"\n%%EOF\n"),
        ("application/json", b'{"grain": ["barley", "rye"], "open": true}'),
        ("text/plain", " ".join(PROSE).encode()),
    )
    pages = []
    for number in range(count):
        url = f"https://{host}/a/{number}"
        media, body = binary[number % len(binary)]
        moved = (("Location", f"https://{host}/b/{number}"), ("Content-Type", "text/html"))
        made = (
            DemoPage(url=url, kind="redirect", status=301, headers=moved, body=b"<html><body>Moved.</body></html>"),
            DemoPage(url=url, kind="missing", status=404, body=framed(SLUICE, "Not found", _story(rng))),
            DemoPage(url=url, kind="binary", media=media, headers=(("Content-Type", media),), body=body),
        )
        pages.append(made[number % len(made)])
    return pages


# --- URLs that rules block
# ---------------------------------------------------------------------------------------------


def _asset(name: str) -> Path:
    return Path(str(distribution("datatrove").locate_file(f"datatrove/assets/{name}")))


def _words(name: str) -> list[str]:
    lines = _asset(name).read_text("utf-8").splitlines()
    return sorted(line.strip() for line in lines if line.strip().isalpha())


def _first_domains() -> list[str]:
    """Return the first 45,000 or so of the 4,600,000 blocked domains, in the list's order."""
    with tarfile.open(_asset("url_filterblacklistsv0_3_0.tar.gz"), "r:gz") as packed:
        lines = packed.extractfile("domains")
        assert lines is not None, "the list is a file of the archive"
        return lines.read(MIB).decode().splitlines()[:-1]


def blocked_urls() -> dict[str, list[str]]:
    """Return URLs by the list of datatrove's that blocks them: `domain`, `host`, `word`, `subword`, `soft_words`.

    Not by its list of whole URLs: those have no scheme there, so no URL of a crawl is ever among them.
    """
    listed = _first_domains()
    domains = [name for name in listed if re.fullmatch(r"[a-z0-9-]{4,20}\.(com|net|org)", name)]
    hosts = [name for name in listed if re.fullmatch(r"[a-z0-9-]{4,20}\.[a-z0-9-]{4,20}\.(com|net|org)", name)]
    soft = _words("soft_banned_words.txt")
    return {
        "domain": [f"https://www.{name}/mill/story.html" for name in domains[:8]],
        "host": [f"https://{name}/mill/story.html" for name in hosts[:8]],
        "word": [f"https://{word}.grit.example/story" for word in _words("banned_words.txt")[:8]],
        "subword": [f"https://grit.example/x{word}x/story" for word in _words("banned_subwords.txt")[:8]],
        "soft_words": [f"https://grit.example/{a}-{b}/story" for a, b in zip(soft[:8], soft[8:16], strict=True)],
    }


def blocked_pages(rng: random.Random) -> list[DemoPage]:
    """Return harmless pages under blocked URLs: only a URL rule can tell them from the stories of `written_pages`."""
    return [
        DemoPage(url=url, kind=f"blocked:{rule}", body=framed(SLUICE, "The mill", _story(rng)))
        for rule, urls in blocked_urls().items()
        for url in urls
    ]


# --- pages that break parsers
# ------------------------------------------------------------------------------------------


def bomb(mebibytes: int = BOMB_MIB) -> Iterator[bytes]:
    """Yield an HTML beginning, then zeros, a mebibyte at a time: `mebibytes` in all, which gzip holds in 0.1 % of
    it.
    """
    start = b"<!DOCTYPE html><html><body><p>" + " ".join(PROSE).encode()
    yield start.ljust(MIB, b"\0")
    zeros = bytes(MIB)
    for _ in range(mebibytes - 1):
        yield zeros


def gzipped(blocks: Iterable[bytes]) -> bytes:
    """Return the blocks as one gzip member, without holding them at once."""
    # Runs only: as small as the best level makes zeros (305 kB), in 1.1 s where level 6 takes 2.5 s.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    return b"".join([*map(packer.compress, blocks), packer.flush()])


def hostile_pages() -> dict[str, DemoPage]:
    """Return pages that cost a parser its stack, its memory or its time, by name; the largest body has 8 MB."""
    told = paragraphs(PROSE)
    attributes = " ".join(f'a{number}="{number}"' for number in range(100_000))
    rows = "".join(f"<tr><td>{number}</td><td>rye</td></tr>" for number in range(100_000))
    articles = {
        "deep_divs": "<div>" * 100_000 + told + "</div>" * 100_000,
        "many_attributes": f"<div {attributes}>{told}</div>",
        "long_table": f"<table>{rows}</table>",
        "open_inline": "".join(f"<b><i>grain {number} " for number in range(30_000)),
        "deep_lists": "<ul><li>" * 20_000 + told,
        "open_comment": told + "<!-- " + "- -> <!" * 200_000,
        "angle_brackets": "<" * 2_000_000,
        "endless_word": f"<p>{'grist' * 1_600_000}</p>",
        "entities": f"<p>{'&lt;&#x41;&nosuch;' * 200_000}</p>",
        "many_links": "".join(f'<a href="/{number}">mill {number}</a> ' for number in range(60_000)),
        "odd_characters": f"<p>\x00\x0b\ufffe&#0;&#xD800;&#x110000; {'e' + chr(0x301) * 50_000}</p>{told}",
    }
    made = {
        name: DemoPage(
            url=f"https://www.hostile.invalid/{name}", kind=f"hostile:{name}", body=framed(SLUICE, name, article)
        )
        for name, article in articles.items()
    }
    packed = replace(made["deep_divs"], headers=(("Content-Type", HTML_TYPE), ("Content-Encoding", "gzip")))
    bombed = replace(
        packed, url="https://www.hostile.invalid/body_bomb", kind="hostile:body_bomb", body=gzipped(bomb())
    )
    return {**made, "body_bomb": bombed}
