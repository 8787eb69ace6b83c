"""Rules over a page's URL, in the semantics of datatrove's URLFilter; the lists themselves are read elsewhere."""

from __future__ import annotations

from filters.rule import Paper, Rule, Signal

FINEWEB_URLS = Paper(
    title="The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
    url="https://arxiv.org/abs/2406.17557",
    where="3.3, URL filtering; lists and order of datatrove 0.10 pipeline/filters/url_filter.py",
)


def listed(name: str, says: str) -> Signal:
    """A signal that counts entries of one list found in a URL."""
    return Signal(name=f"url.{name}", kind="count", says=says)


PRESENT = listed("present", "1 where the page has a URL, else 0")
DOMAIN = listed("domain", "1 where the registered domain is on the domain list")
SUBDOMAIN = listed("subdomain", "1 where the full host name is on the domain list")
ADDRESS = listed("address", "1 where the whole URL is on the URL list")
WORDS = listed("words", "banned words among the URL's alphanumeric words")
SOFT_WORDS = listed("soft_words", "distinct softly banned words among the URL's alphanumeric words")
SUBWORDS = listed("subwords", "1 where the URL without other characters contains a banned subword")

RULES = (
    # datatrove raises on a page without a URL; here it is a drop of its own, so that nothing is lost unnamed.
    Rule(name="url.present", signal=PRESENT, low=1, paper=FINEWEB_URLS),
    Rule(name="url.domain", signal=DOMAIN, high=0, paper=FINEWEB_URLS, reason="domain"),
    Rule(name="url.subdomain", signal=SUBDOMAIN, high=0, paper=FINEWEB_URLS, reason="subdomain"),
    Rule(name="url.address", signal=ADDRESS, high=0, paper=FINEWEB_URLS, reason="url"),
    Rule(name="url.words", signal=WORDS, high=0, paper=FINEWEB_URLS, reason="hard_blacklisted"),
    Rule(name="url.soft_words", signal=SOFT_WORDS, high=1, paper=FINEWEB_URLS, reason="soft_blacklisted"),
    Rule(name="url.subwords", signal=SUBWORDS, high=0, paper=FINEWEB_URLS, reason="blacklisted_subword"),
)
