"""URL signals: what each list finds, and that the rules over them are datatrove's filter."""

from __future__ import annotations

import pytest

from filters import url as rules
from filters.rule import first_failing
from pipelines.urls import block_lists, url_signals


def measured(url: str, *, case_sensitive: bool = True) -> dict[str, int]:
    signals = url_signals([url], block_lists(), case_sensitive=case_sensitive)
    return {
        name.removeprefix("url."): int(one.numerator[0]) for name, one in signals.items() if one.numerator is not None
    }


def listed_domain() -> str:
    """A domain of the list, by a search among words that are on no list of words."""
    lists = block_lists()
    candidates = (
        f"{word}.com" for word in ("casino", "poker", "betting", "slots", "roulette", "blackjack", "bingo", "lottery")
    )
    return next(name for name in candidates if lists.has_domain(name))


def test_a_plain_url_is_on_no_list_and_no_url_is_measured_as_absent() -> None:
    expected = {"present": 1, "domain": 0, "subdomain": 0, "address": 0, "words": 0, "soft_words": 0, "subwords": 0}
    assert measured("https://docs.python.org/3/library/zlib.html") == expected
    assert measured("") == dict.fromkeys(expected, 0)


def test_a_domain_on_the_list_is_found_by_registered_domain_and_by_host() -> None:
    name = listed_domain()
    assert measured(f"https://{name}/")["domain"] == 1
    below = measured(f"https://www.shop.{name}/about")
    assert (below["domain"], below["subdomain"]) == (1, 0)
    assert measured(f"https://x{name}/")["domain"] == 0


def test_banned_words_keep_their_case_as_datatroves_do_unless_asked_otherwise() -> None:
    word = sorted(block_lists().words)[0]
    assert measured(f"https://a.example/{word}/")["words"] == 1
    assert measured(f"https://a.example/{word.upper()}/")["words"] == 0
    assert measured(f"https://a.example/{word.upper()}/", case_sensitive=False)["words"] == 1
    assert measured(f"https://a.example/x{word}x/")["words"] == 0


def test_soft_words_are_counted_once_each_and_subwords_anywhere() -> None:
    first, second = sorted(block_lists().soft_words)[:2]
    assert measured(f"https://a.example/{first}/{first}")["soft_words"] == 1
    assert measured(f"https://a.example/{first}-{second}")["soft_words"] == 2


def test_decisions_and_first_reasons_equal_datatroves() -> None:
    with pytest.warns(DeprecationWarning, match="registered_domain"):
        from datatrove.data import Document

        from benchmarks.oracle import url_filter

        lists, theirs = block_lists(), url_filter()
        name, word, soft = listed_domain(), sorted(lists.words), sorted(lists.soft_words)
        urls = [
            *(f"https://{prefix}{name}{path}" for prefix in ("", "www.", "a.b.") for path in ("", "/", "/x?y=1")),
            *(f"https://a.example/{one}" for one in word[:40]),
            *(f"https://{one}.example/" for one in word[:40]),
            *(f"http://a.example/{one.upper()}/{one.title()}" for one in word[:20]),
            *(f"https://a.example/{one}_{two}" for one, two in zip(soft[:40], soft[1:41], strict=True)),
            *(f"https://a.example/{one}/{one}" for one in soft[:40]),
            *sorted(lists.addresses)[:40],
            "https://docs.python.org/3/",
            "https://[::1]/",
            "https://127.0.0.1:8080/a",
            "not a url",
            "https://ex.ample.co.uk/%E4%B8%AD",
            "urn:x",
        ]
        expected = []
        for one in urls:
            result = theirs.filter(Document(text="", id="", metadata={"url": one}))
            expected.append(None if result is True else result[1])
    first, _ = first_failing(url_signals(urls, lists, case_sensitive=True), rules.RULES, len(urls))
    assert [None if at < 0 else rules.RULES[at].reason for at in first] == expected
    assert len(set(expected)) >= 5


def test_the_lists_survive_a_cache_made_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = block_lists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    block_lists.cache_clear()
    after = block_lists()
    block_lists.cache_clear()
    assert after is not before
    assert (after.domains == before.domains).all()
    assert after.addresses == before.addresses
