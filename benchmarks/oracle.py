"""datatrove 0.10.1's own steps of examples/fineweb.py, set up to run offline: what parity tests and benchmarks
compare with.

Both sides on the same trafilatura and its cache cleared before every page; the extractor's timeout at 60 s;
`languages=["en"]`; lid.176.ftz; tldextract on its bundled suffix list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)

from pipelines.read import ReadOptions, read_slice
from pipelines.record import Page, Slice
from pipelines.resources import resource_path
from pipelines.sources import find_sources

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
CRAWL = DATA / "crawl"


class ClearedTrafilatura(Trafilatura):
    """datatrove's extractor, with trafilatura's cache of seen segments cleared before every page."""

    def extract(self, text: str) -> str:
        from trafilatura.deduplication import LRU_TEST

        LRU_TEST.clear()
        return super().extract(text)


def url_filter() -> URLFilter:
    """The URL filter with its lists read; its archive is unpacked into a temporary folder."""
    import datatrove.pipeline.filters.url_filter as module
    from tldextract import TLDExtract

    found = URLFilter()
    found.tldextractor = TLDExtract(suffix_list_urls=(), cache_dir=None)
    kept = module.cached_assets_path
    with tempfile.TemporaryDirectory() as folder:
        module.cached_assets_path = lambda **_: Path(folder)
        try:
            found.download_data()
        finally:
            module.cached_assets_path = kept
    return found


def language_filter() -> LanguageFilter:
    """The language filter on lid.176.ftz; it asks for another distribution of the same binding by name."""
    import datatrove.pipeline.base as base
    import datatrove.utils.lid as lid
    from fasttext.FastText import _FastText

    base.check_required_dependencies = lid.check_required_dependencies = lambda *_: None
    found = LanguageFilter(languages=["en"])
    found.model._model = _FastText(str(resource_path("lid.176.ftz")))
    return found


def datatrove_steps() -> list[Any]:
    """The steps between datatrove's reader and writer, in the order of examples/fineweb.py."""
    return [
        url_filter(),
        ClearedTrafilatura(favour_precision=True, timeout=60),
        language_filter(),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]


@dataclass(frozen=True)
class Verdict:
    """What became of a document: the reason of its drop (None: kept), its text and its language then."""

    reason: str | None
    text: str
    language: str


class Dropped:
    """An exclusion writer that keeps what datatrove drops, with the step that dropped it."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Dropped:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, document: Document, rank: int = 0) -> None:
        """Keep the reason; the language filter gives none."""
        self.reasons[document.id] = document.metadata.get("filter_reason", "language")


def datatrove_verdicts(pages: Iterable[Page], steps: list[Any]) -> dict[str, Verdict]:
    """Run datatrove's steps as they run in its executor, and return each document's verdict by its id."""
    pages = list(pages)
    documents = [Document(text=page.text, id=page.record_id, metadata={"url": page.url}) for page in pages]
    dropped = Dropped()
    stream: Iterator[Document] = iter(documents)
    for step in steps:
        step.exclusion_writer = dropped
        stream = step.run(stream)
    kept = {document.id for document in stream}
    return {
        document.id: Verdict(
            reason=None if document.id in kept else dropped.reasons.get(document.id, "extract_empty"),
            text=document.text,
            language=document.metadata.get("language", ""),
        )
        for document in documents
    }


def crawl_pages(*names: str, folder: Path = CRAWL) -> Iterator[Page]:
    """The pages of these files of the crawl, in order."""
    for source in find_sources([str(folder / name) for name in names]):
        for event in read_slice(Slice(source=source, start=0, end=source.size), ReadOptions()):
            if isinstance(event, Page):
                yield event
