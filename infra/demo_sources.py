"""Real pages out of what lies on any machine where this project is installed: nobody wrote them for a demo.

They are the standard library's manual and module pages, the descriptions, licences, docstrings and HTML files of
installed distributions, and sentences and message catalogues in other languages. No module of a distribution is
imported: sources are parsed. The same installed distributions give the same pages in the same order.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics

from infra.demo_pages import BABBLE, HOPPER, MIB, MILLRACE, QUERN, DemoPage, framed, paragraphs

SHORTEST_ENTRY = 1000  # characters; FineWeb asks for 50 words of main text, and a reference entry is half code
SHORTEST_GUIDE = 6  # paragraphs
MOST_ENTRIES = 40  # of a folder; numpy alone has 441
MOST_MODULES = 32  # of a folder
_Told = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
LONGEST_PAGE = 60_000  # characters of source text; change logs of 140,000 would be most of the crawl's bytes
# A distribution and the folder of it whose docstrings become pages; tests and vendored copies are left out.
DOCUMENTED = (
    ("numpy", "numpy/"),
    ("polars", "polars/"),
    ("ray", "ray/data/"),
    ("ray", "ray/tune/"),
    ("huggingface_hub", "huggingface_hub/"),
    ("numba", "numba/core/"),
    ("pydantic", "pydantic/"),
    ("pyarrow", "pyarrow/"),
    ("setuptools", "setuptools/"),
    ("spacy", "spacy/"),
    ("fsspec", "fsspec/"),
    ("aiohttp", "aiohttp/"),
    ("click", "click/"),
    ("rich", "rich/"),
    ("jinja2", "jinja2/"),
    ("scipy", "scipy/optimize/"),
    ("scipy", "scipy/stats/"),
    ("nltk", "nltk/"),
)
MODULES = (
    "argparse bisect calendar cmd codecs collections contextlib copy csv dataclasses datetime difflib doctest enum "
    "fileinput fnmatch functools getopt gzip heapq html.parser io json linecache logging mailbox pathlib pickle queue "
    "random re sched shelve shlex statistics string textwrap threading timeit urllib.parse uuid warnings zipfile"
)

# Runs in a process of its own with an empty environment: pydoc prints module data, which may hold environment
# variables.
_PYDOC = r"""
import importlib, json, pydoc, re, sys
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        continue
    page = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
    page = re.sub(r'<a href="file:[^>]*>[^<]*</a>', "", page)
    print(json.dumps([name, re.sub(r"0x[0-9a-f]{6,}", "0x0", page)]))
"""


# --- Markdown and reStructuredText as plain HTML
# -----------------------------------------------------------------------

_BULLET = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_UNDERLINE = re.compile(r"([=\-~^*#\"'`])\1{2,}\s*")


def _inline(text: str) -> str:
    """Return escaped HTML of one run of text; images and role names go, links and code stay."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r":[a-z:]+:`([^`<]+?)(?:\s*<[^>`]*>)?`", r"``\1``", text)
    text = html.escape(re.sub(r"</?[a-zA-Z][\w-]*(\s[^>]*)?/?>", "", text), quote=False)
    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)[^)]*\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r"`([^`&]+?)\s*&lt;([^`\s]+)&gt;`__?", r'<a href="\2">\1</a>', text)
    text = re.sub(r"`{1,2}([^`]+)`{1,2}_?", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"(?<![\w*])\*(\w[^*\n]*)\*(?![\w*])", r"<em>\1</em>", text)
    return " ".join(text.split())


def _block(block: str) -> str:
    """Return one block (no blank line in it) as a heading, a list, code or a paragraph; empty where nothing is said."""
    lines = [line for line in block.splitlines() if not re.match(r"\s*(\.\. \S|\[!\[|:[\w-]+:\s|<!--)", line)]
    if lines and re.match(r"#{1,6} ", lines[0]):
        return f"<h2>{_inline(lines[0].lstrip('# '))}</h2>\n{_block(chr(10).join(lines[1:]))}"
    if len(lines) > 1 and _UNDERLINE.fullmatch(lines[1]):
        return f"<h2>{_inline(lines[0])}</h2>\n{_block(chr(10).join(lines[2:]))}"
    if not lines or all(_UNDERLINE.fullmatch(line) for line in lines):
        return ""
    if all(line.startswith(("    ", "\t")) for line in lines) or lines[0].lstrip().startswith((">>>", "|", "+-")):
        return f"<pre><code>{html.escape(textwrap.dedent(chr(10).join(lines)))}</code></pre>"
    if _BULLET.match(lines[0]):
        items = re.split(r"\n(?=\s*(?:[-*+]|\d+[.)])\s)", "\n".join(lines))
        return "<ul>" + "".join(f"<li>{_inline(_BULLET.sub('', item, count=1))}</li>" for item in items) + "</ul>"
    said = _inline("\n".join(lines))
    return f"<p>{said}</p>" if said else ""


def marked_up(text: str) -> str:
    """Return Markdown or reStructuredText as HTML: headings, lists, code and paragraphs; what else it means is lost."""
    text = text.expandtabs().replace("\r\n", "\n")[:LONGEST_PAGE]
    fenced = re.split(r"^ *```.*$", text, flags=re.M)  # odd parts lie between two fences
    parts = []
    for number, part in enumerate(fenced):
        if number % 2:
            parts.append(f"<pre><code>{html.escape(part)}</code></pre>")
        else:
            parts.extend(_block(block) for block in re.split(r"\n\s*\n", part))
    return "\n".join(part for part in parts if part)


# --- the standard library
# ----------------------------------------------------------------------------------------------


def manual_pages() -> list[DemoPage]:
    """Return a page for each topic of the language reference that Python ships for `help()`.

    That text has quotes where the reference has code; they become code again.
    """
    return [
        DemoPage(
            url=f"https://{QUERN.host}/manual/{name.lower()}.html",
            kind="manual",
            body=framed(QUERN, f"Manual: {name}", marked_up(re.sub(r'"([^"\n]{1,40})"', r"`\1`", text))),
        )
        for name, text in sorted(topics.items())
    ]


def _start() -> dict[str, str]:
    """Return the environment variables without which some builds of Python do not start."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}


def module_pages() -> list[DemoPage]:
    """Return pydoc's own page of each of `MODULES`, made in a child process, without addresses and file
    paths.
    """
    done = (
        subprocess.run(  # -S: no site-packages; -P: no current folder on the path; the child imports only the library
            [sys.executable, "-BPsS", "-W", "ignore", "-c", _PYDOC, *MODULES.split()],
            env={"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8", **_start()},
            capture_output=True,
            check=True,
            timeout=120,
        )
    )
    made = (json.loads(line) for line in done.stdout.splitlines())
    return [
        DemoPage(url=f"https://pydoc.weir.example/3/{name}.html", kind="module", body=page.encode())
        for name, page in made
    ]


# --- installed distributions
# -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Installed:
    """One installed distribution: `files` are sorted paths under `root`; some may be gone."""

    name: str
    description: str
    root: Path
    files: tuple[str, ...]


def installed() -> list[Installed]:
    """Return the installed distributions but Gristmill itself, one of each name, sorted by name.

    From the environment's own folders, not from sys.path: what a process imported (Ray adds a folder) must not count.
    """
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    by_name = {dist.name.lower(): dist for dist in distributions(path=folders) if dist.name}
    return [
        Installed(
            name=name,
            description=str(dist.metadata.json.get("description", "")),
            root=Path(str(dist.locate_file(""))),
            files=tuple(sorted(map(str, dist.files or ()))),
        )
        for name, dist in sorted(by_name.items())
        if name != "gristmill"
    ]


def description_pages(dists: list[Installed]) -> list[DemoPage]:
    """Return the long description of every distribution that has one, as a package index shows it."""
    return [
        DemoPage(
            url=f"https://{HOPPER.host}/project/{dist.name}/",
            kind="description",
            body=framed(HOPPER, dist.name, marked_up(dist.description)),
        )
        for dist in dists
        if len(dist.description) > 500
    ]


def licence_pages(dists: list[Installed]) -> list[DemoPage]:
    """Return the licence files of the distributions: near copies of each other by nature."""
    pages = []
    for dist in dists:
        for name in dist.files:
            path = dist.root / name
            if re.search(r"(?i)\.dist-info/.*(licen[cs]e|copying|notice|authors)[^/]*$", name) and path.is_file():
                text = path.read_text("utf-8", "replace")
                url = f"https://{MILLRACE.host}/{name}.html"
                body = framed(MILLRACE, f"{dist.name}: {path.name}", marked_up(text))
                pages.append(DemoPage(url=url, kind="licence", body=body))
    return pages


def _definitions(node: ast.Module | ast.ClassDef) -> Iterator[_Told]:
    """Yield a module or class and what it defines; functions inside functions have no pages."""
    yield node
    for inner in node.body:
        if isinstance(inner, ast.ClassDef):
            yield from _definitions(inner)
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner


def _parsed(source: bytes) -> ast.Module:
    """Return a module's syntax tree, without the warnings of code that is not ours; empty where it is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except SyntaxError:  # templates of code generators, and code for later versions of Python
            return ast.Module(body=[], type_ignores=[])


def _docstrings(files: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (module, docstring by name) of Python files with docstrings, in an order of no meaning."""
    for name, path in sorted(files, key=lambda file: hashlib.sha256(file[0].encode()).digest()):
        if re.search(r"/(tests?|_vendor|testing)/", name) or not path.is_file():
            continue
        source = path.read_bytes()
        if source.count(b'"""') < 6:  # saves parsing 1 module of 3
            continue
        told = ((node, ast.get_docstring(node)) for node in _definitions(_parsed(source)))
        module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        yield module, {getattr(node, "name", ""): text for node, text in told if text is not None}


def _prose(text: str) -> list[str]:
    """Return the paragraphs of running text: they end in a full stop, and 5 words of 6 are nothing but letters."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        words = block.split()
        letters = sum(word.strip(".,;:()'").isalpha() for word in words)
        if block[:1].isupper() and block.endswith(".") and len(words) >= 12 and letters * 6 >= len(words) * 5:
            found.append(block)
    return found


def folder_pages(dist: str, files: Iterable[tuple[str, Path]]) -> list[DemoPage]:
    """Return a reference page for each of the first `MOST_ENTRIES` long docstrings, and a guide of each module read.

    A guide is the running text of all docstrings of its module.
    """
    entries: list[DemoPage] = []
    guides = []
    for module, told in islice(_docstrings(files), MOST_MODULES):
        home = f"https://{QUERN.host}/{dist}/{module}"
        for name, text in told.items():
            if name and len(text) >= SHORTEST_ENTRY:
                body = framed(QUERN, name, f"<p>Defined in <code>{module}</code>.</p>\n{marked_up(text)}")
                entries.append(DemoPage(url=f"{home}.{name}.html", kind="reference", body=body))
        guide = list(dict.fromkeys(block for text in told.values() for block in _prose(text)))
        if len(guide) >= SHORTEST_GUIDE:
            body = framed(QUERN, f"About {module}", marked_up("\n\n".join(guide)))
            guides.append(DemoPage(url=f"{home}/about.html", kind="guide", body=body))
        if len(entries) >= MOST_ENTRIES:
            break
    return entries[:MOST_ENTRIES] + guides


def reference_pages(dists: list[Installed]) -> list[DemoPage]:
    """Return the pages of the folders of `DOCUMENTED` and of the standard library's modules."""
    by_name = {dist.name: dist for dist in dists}
    library = Path(ast.__file__).parent
    pages = folder_pages("python", [(path.relative_to(library).as_posix(), path) for path in library.glob("[a-z]*.py")])
    for name, folder in DOCUMENTED:
        if name in by_name:
            inside = (file for file in by_name[name].files if file.startswith(folder) and file.endswith(".py"))
            pages += folder_pages(name, [(file, by_name[name].root / file) for file in inside])
    return pages


def html_pages(dists: list[Installed]) -> list[DemoPage]:
    """Return the HTML files of up to 1 MiB that distributions and the standard library ship, byte for byte."""
    library = Path(ast.__file__).parent
    shipped = [(name, dist.root / name) for dist in dists for name in dist.files if name.endswith(".html")]
    shipped += [(path.relative_to(library).as_posix(), path) for path in sorted(library.glob("*/*.html"))]
    return [
        DemoPage(url=f"https://files.weir.example/{name}", kind="html_file", body=path.read_bytes())
        for name, path in shipped
        if path.is_file() and path.stat().st_size <= MIB
    ]


# --- other languages
# ---------------------------------------------------------------------------------------------------


def _sentences(source: bytes) -> list[str]:
    for node in _parsed(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            return [str(item.value) for item in node.value.elts if isinstance(item, ast.Constant)]
    return []


_TOLD_IN = (".po", "/examples.py")


def language_pages(dists: list[Installed]) -> list[DemoPage]:
    """Return a page of sentences for each language of spaCy, and one for each message catalogue (`.po`) found."""
    pages = []
    for name, path in ((name, dist.root / name) for dist in dists for name in dist.files if name.endswith(_TOLD_IN)):
        if name.endswith(".po"):  # <package>/locale/<language>/LC_MESSAGES/<domain>.po
            texts = re.findall(r'^msgstr(?:\[\d\])? "([^"\\]+)"$', path.read_text("utf-8", "replace"), re.M)
            place = path.parts[-3]
        elif re.fullmatch(r"spacy/lang/\w+/examples\.py", name):
            texts, place = _sentences(path.read_bytes()), path.parts[-2]
        else:
            continue
        lang = place.split("_")[0]
        url = f"https://{BABBLE.host}/{place.lower()}/{path.stem}.html"
        body = framed(BABBLE, lang, paragraphs(texts), lang=lang)
        pages.append(DemoPage(url=url, kind=f"language:{lang}", body=body))
    return pages


def real_pages() -> dict[str, list[DemoPage]]:
    """Return every real page found on this machine, by source, each source in a fixed order."""
    dists = installed()
    return {
        "manual": manual_pages(),
        "module": module_pages(),
        "html_file": html_pages(dists),
        "language": language_pages(dists),
        "description": description_pages(dists),
        "licence": licence_pages(dists),
        "reference": reference_pages(dists),
    }
