"""Pages of plain text, as a reader of rows gives them."""

from __future__ import annotations

from pipelines.record import Page, Position


def pages(texts: list[str]) -> list[Page]:
    """A page for each text, in its order; none is HTML."""
    return [
        Page(
            position=Position(offset=at),
            length=1,
            record_id=f"<{at}>",
            url="https://mill.example/",
            date="",
            text=text,
            is_html=False,
            digest=b"",
        )
        for at, text in enumerate(texts)
    ]
