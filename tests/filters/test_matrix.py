"""MAP-NEO's rules: pages made for a rule, and what the published code computes, in plain Python, over any text."""

import math
import re
import string
import time
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import matrix_en, matrix_zh
from filters.batch import TextBatch
from filters.kernels import distribution
from filters.kernels_characters import repeated_characters
from filters.normal_form import nfkc
from filters.redpajama import SMART
from filters.rule import Family
from filters.splitter import WordSplitter
from filters.tokens import Vocabulary
from pipelines.words import unicode_words

Values = dict[str, float]

PIECES = [
    *("the", "The", "don't", "(of)", "A", "ABC", "ABc", "Ǆ", "it", "a1", "12", "½", "٣", "四", "日本", "中文网", "🎉"),
    *("_", "#", "##", "...", "..", ".", "…", "……", "{", "}", "!", "？", "。", "。。", "“", "，", "；", "％", "•", "·"),
    *("●x", "–", "lorem ipsum", "Lorem Ipsum", "ｌorem ipsum", "read more", "readmore", "展开", "更多", "【", "】"),
    *("【广告】", "ﬁ", "™", "www.a.b", "http://x.y/z", "a.com", "a.b.c.d", "x-1.2.3.4.", "3.14", "e.g.", "_a.net"),
    *("é.org", "a.company", "e\u0301"),
]
BLANKS = st.sampled_from([" ", "", "", "\n", "\r\n", "\r", "\t", "\u2028", "\u3000", "\xa0", "\x0b"])
PROSE = st.lists(st.tuples(st.sampled_from(PIECES), BLANKS).map("".join), max_size=40).map("".join)
REPEATED = st.text("ab. ", max_size=80)
TEXTS = PROSE | REPEATED | st.text()
MARKS = dict(zip(matrix_zh.FULL_WIDTH, matrix_zh.HALF_WIDTH, strict=True))
BULLETS = tuple("•●○■□▪▫※·➢‣▶◀◦–")


def sentences_of(text: str) -> list[str]:
    """Sentences as Punkt cuts them where no abbreviation is known: after . ! ? and white space; ends are stripped."""
    starts = [0, *(found.end() for found in re.finditer(r"[.!?]\s+", text.rstrip()))]
    ends = [*(found.start() + 1 for found in re.finditer(r"[.!?]\s+", text.rstrip())), len(text.rstrip())]
    return [text[start:end] for start, end in zip(starts, ends, strict=True) if text[start:end].strip()]


PLAIN = WordSplitter(
    name="plain",
    words=lambda texts: [re.findall(r"\w+|[^\w\s]", text) for text in texts],
    sentences=lambda lines: [len(sentences_of(line)) for line in lines],
    chunk_local=False,
)


def measured(family: Family, text: str) -> Values:
    signals = family.measure(TextBatch([text], Vocabulary(PLAIN)))
    return {name.removeprefix(f"{family.name}."): float(of.value[0]) for name, of in signals.items()}


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def entropy(counts: Counter[str]) -> float:
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) if total else math.nan


def grams(text: str) -> Values:
    values: Values = {}
    for n in range(2, 11):
        counts = Counter(text[at : at + n] for at in range(len(text) - n + 1))
        if n < 5:
            values[f"top_{n}_gram"] = ratio((max(counts.values(), default=1) - 1) * n, len(text))
        else:
            letters = {letter for gram, count in counts.items() if count > 1 for letter in gram}
            values[f"repeated_{n}_grams"] = ratio(len(letters), len(text))
    return values


def runs(text: str) -> int:
    return len(re.findall("…+", text)) + len(re.findall(r"\.{2,}", text))


def english(text: str) -> Values:
    normal = unicodedata.normalize("NFKC", text)
    words, chunks, lines = PLAIN.words([text])[0], text.split(), text.splitlines()
    kept = len(re.sub(r"[^\w\s]", "", text))
    sentences = sentences_of(text)
    known = set(re.sub(r"[^\w\s'\\]", "", text).lower().split()) & SMART
    bare = text.strip().replace(" ", "").replace("\n", "").replace("\t", "")
    return {
        "mean_word_length": ratio(sum(len(unicodedata.normalize("NFKC", word)) for word in words), len(words)),
        "ellipsis_ratio": ratio(runs(text), len(text)),
        "bullet_line_ratio": ratio(sum(line.startswith(BULLETS) for line in lines), len(lines)),
        "no_alpha_ratio": ratio(sum(not any(map(str.isalpha, chunk)) for chunk in chunks), len(text)),
        "stop_words": len(known),
        "symbol_word_ratio": ratio(sum(map(text.count, ("#", "...", "…"))), len(words)),
        "words": len(words),
        "characters": len(bare),
        "lines": len(text.split("\n")),
        "curly_ratio": ratio(text.count("{") + text.count("}"), len(text)),
        "lorem_ipsum_ratio": ratio(normal.lower().count("lorem ipsum"), len(normal)),
        "sentence_stretches": len(re.findall(r"\b[^.!?]+[.!?]*", normal)),
        "all_caps_ratio": ratio(sum(chunk.isalpha() and chunk.isupper() for chunk in chunks), len(chunks)),
        "unique_ratio": ratio(len(set(chunks)), len(chunks)),
        "sentences": len(sentences),
        "read_more_ratio": ratio(
            sum(bool(re.match(r".*(read more)$", sentence.lower())) for sentence in sentences), len(sentences)
        ),
        "hash_ratio": ratio(len(re.findall("#+", text)), len(text)),
        "punctuation": sum(character in string.punctuation for character in text),
        "non_alpha_ratio": ratio(sum(not word.isalpha() for word in words), kept),
        "digit_ratio": ratio(sum(map(str.isdigit, words)), kept),
        "entropy": entropy(Counter(chunks)),
        **grams(text),
    }


def edited(text: str) -> str:
    """The edit as the code writes it: three substitutions, of quadratic time in the worst case."""
    text = "".join(MARKS.get(character, character) for character in text)
    text = re.sub("https?://[^\\s,，一-\u9fa5]*|www\\.[^\\s,，一-\u9fa5]*", "", text)
    text = re.sub(r"[a-zA-Z0-9-]+\.[a-zA-Z0-9-]+\.[a-zA-Z0-9-]+\.[a-zA-Z0-9.-]+\.?", "", text)
    return re.sub("(?<![一-\u9fa5])\\b[a-zA-Z0-9.-]+\\.[a-z]{2,6}\\b", "", text)


def chinese(text: str) -> Values:
    before, left = unicodedata.normalize("NFKC", text), edited(text)
    normal = unicodedata.normalize("NFKC", left)
    kept, lines = re.sub(r"[^\w\s]", "", normal), normal.splitlines()
    more = ("readmore", "展开", "更多", "。。。")
    return {
        "bracket_ratio": ratio(sum(map(len, re.findall("【(.*?)】", before))), len(before)),
        "sentences": sum(bool(part.strip()) for part in re.split(r'[.!…?;"]+', left)),
        "characters": len(normal),
        "hash_ratio": ratio(len(re.findall("#+", left)), len(left)),
        "ellipsis_ratio": ratio(runs(left), len(left)),
        "digit_ratio": ratio(sum(map(str.isdigit, kept)), len(kept)),
        "read_more_ratio": ratio(sum(line.endswith(more) for line in lines), len(lines)),
        "bullet_line_ratio": ratio(sum(line.startswith(BULLETS) for line in lines), len(lines)),
        "punctuation_ratio": ratio(sum(c in "…" + string.punctuation for c in normal), len(normal)),
        "unique_ratio": ratio(len(set(normal)), len(normal)),
        "entropy": entropy(Counter(normal)),
        **grams(left),
    }


@settings(deadline=None, max_examples=200)
@given(TEXTS)
@example("one. two\nread more")
@example("one.\ntwo read more")
@example("one. two? read more \n")
@example("read\r\nmore\rx\x1e•\r\n\r\n")
def test_english_signals_are_those_of_the_code(text: str) -> None:
    assert measured(matrix_en.QUALITY, text) == pytest.approx(english(text), nan_ok=True, abs=1e-6)


FORMS = st.lists(st.sampled_from([*"ae각가한 \u1161\u11a8\u0301\u0323\u3099カｶﾞ…™ﬁ½\xa0Å“<\u0338", "plain text"]))


@settings(deadline=None, max_examples=500)
@given(st.lists(st.tuples(FORMS.map("".join), st.text()).map(lambda parts: parts[0] + "x" * 60 + parts[1])))
def test_nfkc_in_pieces_is_nfkc(texts: list[str]) -> None:
    points = TextBatch(texts, Vocabulary(PLAIN)).points
    assert nfkc(texts, points.values, points.offsets) == [unicodedata.normalize("NFKC", text) for text in texts]


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_chinese_signals_are_those_of_the_code(text: str) -> None:
    assert measured(matrix_zh.QUALITY, text) == pytest.approx(chinese(text), nan_ok=True, abs=1e-6)


LINKED = st.lists(
    st.sampled_from([*"aZ9.-_ 中é/", ".com", ".net", "www.", "http://", "a.b", "..", ".company", ","]), max_size=24
).map("".join)


@settings(deadline=None, max_examples=1000)
@given(LINKED)
@example("a.b.c.d.com")
@example("中a.com-b.net x.org")
@example("-.a.com")
@example("_a.com.-.b")
def test_the_edit_cuts_out_what_the_code_cuts_out(text: str) -> None:
    assert matrix_zh.without_links(matrix_zh.unified(text)) == edited(text)
    assert matrix_zh.TEXT.apply(TextBatch([text], Vocabulary(unicode_words()))).texts == [edited(text)]


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_text_has_the_same_values_in_a_batch_and_alone(texts: list[str]) -> None:
    for family in (matrix_en.QUALITY, matrix_zh.QUALITY, matrix_zh.WORDS):
        whole = family.measure(TextBatch(texts, Vocabulary(unicode_words())))
        for at, text in enumerate(texts):
            alone = family.measure(TextBatch([text], Vocabulary(unicode_words())))
            assert {s.name for s in family.signals} == alone.keys()
            for name, signal in whole.items():
                assert np.array_equal(signal.value[[at]], alone[name].value, equal_nan=True), name


def failing(family: Family, text: str) -> set[str]:
    signals = family.measure(TextBatch([text], Vocabulary(PLAIN)))
    return {
        rule.name.removeprefix(f"{family.name}.")
        for rule in family.rules
        if not rule.passes(signals[rule.signal.name].value)[0]
    }


NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi"
)
GOOD = " ".join(f"The {a} of {b} moves." for a, b in zip(NAMES.split(), NAMES.split()[5:], strict=False)) + (
    " We saw how many wonderful quiet gardens bloom beside rivers, while people walked home every evening."
)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (GOOD, set()),
        (GOOD + " Read more", set()),  # one sentence of 19
        (GOOD + " lorem ipsum", {"lorem_ipsum_ratio"}),
        (GOOD + " {}{}{}{}{}{}{}{}{}", {"curly_ratio"}),
        (GOOD.replace(".", ""), {"sentences"}),
        (" ".join(word if at % 4 else word.upper() for at, word in enumerate(GOOD.split())), {"all_caps_ratio"}),
        ("\n".join("• " + line for line in GOOD.split("\n")), {"bullet_line_ratio"}),
        (
            "One day it is. We like to read more",
            {"characters", "entropy", "mean_word_length", "read_more_ratio", "words"},
        ),
    ],
)  # fmt: skip
def test_a_page_fails_the_rule_it_was_made_for(text: str, fails: set[str]) -> None:
    assert (
        failing(matrix_en.QUALITY, text)
        - {f"top_{n}_gram" for n in (2, 3, 4)}
        - {f"repeated_{n}_grams" for n in range(5, 11)}
        == fails
    )


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("no_alpha_ratio", 0.4, False),
        ("ellipsis_ratio", 0.1, True),
        ("symbol_word_ratio", 0.5, False),
        ("curly_ratio", 0.025, False),
        ("sentence_stretches", 7500, False),
        ("all_caps_ratio", 0.1, True),
        ("unique_ratio", 0.1, True),
        ("sentences", 1, False),
        ("words", 10_000, True),
        ("punctuation", 0, False),
        ("top_2_gram", 0.2, True),
    ],
)
def test_at_the_threshold_english_rules_decide_as_the_code(name: str, value: float, kept: bool) -> None:
    rule = next(rule for rule in matrix_en.RULES if rule.name == f"matrix_en.{name}")
    assert rule.passes(np.array([value])).tolist() == [kept]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("unique_ratio", 0.1, False), ("entropy", 3, True), ("bracket_ratio", 0.1, True), ("repeated_5_grams", 0.6, True)],
)
def test_at_the_threshold_chinese_rules_decide_as_the_code(name: str, value: float, kept: bool) -> None:
    rule = next(rule for rule in matrix_zh.RULES if rule.name == f"matrix_zh.{name}")
    assert rule.passes(np.array([value])).tolist() == [kept]


def test_the_mean_length_of_chinese_words_is_that_of_the_splitter_it_is_given() -> None:
    words = {"我们喜欢音乐，": ["我们", "喜欢", "音乐", ","], "a1！": ["a1", "!"]}
    jieba = replace(
        PLAIN, name="jieba", words=lambda texts: [words[text.replace(",", "，").replace("!", "！")] for text in texts]
    )
    signals = matrix_zh.WORDS.measure(TextBatch(list(words), Vocabulary(jieba)))
    assert signals["matrix_zh_words.mean_word_length"].value.tolist() == [6 / 3, 2 / 1]


@pytest.mark.parametrize("text", ["", " ", "x", "🎉", "\x00", "\ud800", "ש", "\n", "ab", "abc"])
@pytest.mark.parametrize("family", [matrix_en.QUALITY, matrix_zh.QUALITY, matrix_zh.WORDS], ids=lambda f: f.name)
def test_small_and_odd_texts_have_values(family: Family, text: str) -> None:
    signals = family.measure(TextBatch([text], Vocabulary(PLAIN)))
    assert signals.keys() == {signal.name for signal in family.signals}
    assert all(of.value.shape == (1,) and not np.isinf(of.value).any() for of in signals.values())


def test_characters_are_counted_by_number_where_there_are_too_many_for_a_grid() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1500))) * 2  # 1,500 ** 2 pairs
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    assert repeated_characters(points, np.array([0, 3000]))[0].tolist() == [2, 3, 4, *[1500] * 6]


def seconds(count: int, shape: str) -> float:
    rng = np.random.default_rng(1)
    points = {
        "one letter": np.full(count, 97),
        "two letters": rng.integers(97, 99, count),
        "many letters": rng.integers(0x4E00, 0x4E00 + 2000, count),
        "no repeat": np.arange(count) % 0x10FFFF,
    }[shape].astype(np.uint32)
    offsets, best = np.array([0, count]), np.inf
    for _ in range(3):
        begun = time.thread_time()
        repeated_characters(points, offsets)
        distribution(points, offsets)
        best = min(best, time.thread_time() - begun)
    return best


@pytest.mark.parametrize("shape", ["one letter", "two letters", "many letters", "no repeat"])
def test_ngrams_of_characters_take_linear_time(shape: str) -> None:
    seconds(10, shape)
    # 8 times the characters: 64 times the time if it were quadratic; tables that outgrow a cache make 8 up to 20.
    assert seconds(320_000, shape) < 32 * seconds(40_000, shape)


@pytest.mark.parametrize("part", ["a", "a.", ".", "-", "a.a-", "a.com.", "www."])
def test_cutting_out_links_takes_linear_time(part: str) -> None:
    def once(count: int) -> float:
        begun = time.thread_time()
        matrix_zh.without_links(part * count + ".x")
        return time.thread_time() - begun

    assert once(80_000) < 32 * max(once(10_000), 1e-3)
