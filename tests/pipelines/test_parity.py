"""`fineweb@datatrove-0.10` decides as datatrove 0.10.1 does, page by page: text, language, kept, first reason."""

from collections import Counter

import pytest
import xxhash

from benchmarks.oracle import CRAWL, crawl_pages, datatrove_steps, datatrove_verdicts
from pipelines.decide import Decider
from pipelines.recipe import Recipe, load_recipe
from pipelines.record import Page

pytestmark = [
    pytest.mark.skipif(not CRAWL.is_dir(), reason="the real pages of shared/data/crawl are not here"),
    # datatrove reads a property of tldextract that is on its way out
    pytest.mark.filterwarnings("ignore:The 'registered_domain' property:DeprecationWarning"),
]
FILES = ("part-*.warc.gz", "languages.warc.gz")


def patient(recipe: Recipe) -> Recipe:
    said = recipe.model_dump(mode="json")
    for step in said["steps"]:
        if step["extract"]:
            step["extract"]["limits"]["deadline_seconds"] = 60.0
    return Recipe.model_validate(said | {"tokenizer": None})


def differences(pages: list[Page]) -> tuple[list[tuple[str, object, object]], Counter[str | None]]:
    recipe = patient(load_recipe("fineweb@datatrove-0.10"))
    theirs = datatrove_verdicts(pages, datatrove_steps())
    found = []
    reasons: Counter[str | None] = Counter()
    with Decider(recipe) as decider:
        for start in range(0, len(pages), 256):
            batch = pages[start : start + 256]
            decided = decider.decide(batch)
            assert decided.refused == {}
            for index, page in enumerate(batch):
                reason = None if decided.first[index] < 0 else recipe.rules[decided.first[index]].reason
                expected = theirs[page.record_id]
                reasons[reason] += 1
                if reason != expected.reason:
                    found.append((page.url, reason, expected.reason))
                elif reason is None and decided.text[index] != expected.text:
                    found.append((page.url, "text", "text"))
                elif decided.language[index] != expected.language:
                    found.append((page.url, decided.language[index], expected.language))
    return found, reasons


def test_verdicts_texts_languages_and_reasons_equal_datatroves_on_a_sample() -> None:
    pages = [page for page in crawl_pages(*FILES) if xxhash.xxh64_intdigest(page.record_id.encode(), seed=7) % 24 == 0]
    found, reasons = differences(pages)
    assert found == []
    assert reasons[None] > 10
    assert len(reasons) > 5


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_verdicts_texts_languages_and_reasons_equal_datatroves_on_every_page() -> None:
    found, reasons = differences(list(crawl_pages(*FILES)))
    assert found == []
    assert reasons.total() > 3000
