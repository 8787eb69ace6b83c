"""Bytes of pages in forty encodings, labelled rightly, wrongly and not at all, become the right text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.charset import encoding_of, text_from_bytes

LATIN = "Façade, naïve café, Ærø — “quoted” €5 déjà vu. "
TEXTS = {
    "windows-1252": LATIN,
    "iso-8859-1": "Façade, naïve café, Ærø, déjà vu. ",
    "iso-8859-15": "Façade €5 Œuvre. ",
    "iso-8859-2": "Zażółć gęślą jaźń. ",
    "windows-1250": "Příliš žluťoučký kůň. ",
    "iso-8859-3": "Ĉiuĵaŭde ŝi ĝojas. ",
    "iso-8859-4": "Ģimene ēd ķiršus. ",
    "iso-8859-5": "Съешь же ещё этих булок. ",
    "windows-1251": "Съешь же ещё этих булок. ",
    "koi8-r": "Съешь же ещё этих булок. ",
    "koi8-u": "Жебракують філософи ґанку. ",
    "ibm866": "Съешь же ещё этих булок. ",
    "macintosh": "Café naïve façade. ",
    "x-mac-cyrillic": "Съешь же ещё этих булок. ",
    "iso-8859-6": "صباح الخير يا عالم. ",
    "windows-1256": "صباح الخير يا عالم. ",
    "iso-8859-7": "Ξεσκεπάζω την ψυχοφθόρα. ",
    "windows-1253": "Ξεσκεπάζω την ψυχοφθόρα. ",
    "iso-8859-8": "דג סקרן שט בים. ",
    "windows-1255": "דג סקרן שט בים. ",
    "iso-8859-9": "Pijamalı hasta yağız şoföre. ",
    "windows-1254": "Pijamalı hasta yağız şoföre. ",
    "iso-8859-10": "Ðar æðar þorn. ",
    "iso-8859-13": "Įlinkdama fechtuotojo špaga. ",
    "windows-1257": "Įlinkdama fechtuotojo špaga. ",
    "iso-8859-14": "Ẁëŷ ŵyth. ",
    "iso-8859-16": "Înghețată și țuică. ",
    "windows-1258": "Cô gái Việt. ".replace("ệ", "ê"),
    "windows-874": "สวัสดีชาวโลก ",
    "tis-620": "สวัสดีชาวโลก ",
    "gb2312": "快速的棕色狐狸跳过懒狗。",
    "gbk": "快速的棕色狐狸跳過懶狗。",
    "gb18030": "快速的棕色狐狸跳過懶狗。𠀀",
    "big5": "快速的棕色狐狸跳過懶狗。",
    "euc-jp": "いろはにほへと 色は匂へど。",
    "shift_jis": "いろはにほへと 色は匂へど①。",
    "iso-2022-jp": "いろはにほへと 色は匂へど。",
    "euc-kr": "다람쥐 헌 쳇바퀴에 타고파.",
    "ks_c_5601-1987": "똠방각하 다람쥐.",
    "hz-gb-2312": "快速的棕色狐狸。",
    "utf-8": "いろは Съешь 快速 😀 ",
}


def packed(text: str, label: str) -> bytes:
    encoding = encoding_of(label)
    assert encoding is not None, label
    return text.encode(encoding)


@pytest.mark.parametrize("label", TEXTS)
def test_the_label_of_the_http_header_is_believed(label: str) -> None:
    text = "<html><p>" + TEXTS[label] * 5
    assert text_from_bytes(packed(text, label), label.upper())[0] == text


@pytest.mark.parametrize("label", TEXTS)
def test_the_label_in_meta_is_believed_where_the_header_has_none(label: str) -> None:
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={label}">'
    text = f"<html><head><script>{'x' * 1500}</script>{meta}" + TEXTS[label] * 5
    assert text_from_bytes(packed(text, label), None)[0] == text


@pytest.mark.parametrize("label", ["iso-8859-1", "windows-1251", "shift_jis", "nonsense", "", None])
def test_valid_utf8_wins_over_any_label(label: str | None) -> None:
    text = "<meta charset=gb2312>" + TEXTS["utf-8"]
    assert text_from_bytes(text.encode(), label) == (text, "utf-8")


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xff\xfe\0\0", "utf-32-le"),
    ],
)
def test_a_byte_order_mark_wins_and_is_no_text(mark: bytes, encoding: str) -> None:
    text = "<p>" + TEXTS["utf-8"]
    assert text_from_bytes(mark + text.encode(encoding), "windows-1251") == (text, encoding)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_of_latin_text_without_a_mark_is_seen(encoding: str) -> None:
    text = "<html><p>plain words " * 9
    assert text_from_bytes(text.encode(encoding), None) == (text, encoding)


def test_a_page_cut_within_a_character_stays_utf8() -> None:
    text, encoding = text_from_bytes("Съешь же ещё".encode()[:-1], "windows-1251")
    assert encoding == "utf-8"
    assert text == "Съешь же ещ\ufffd"


@pytest.mark.parametrize(
    ("label", "text"),
    [  # the first article of the Universal Declaration of Human Rights
        ("windows-1251", "Все люди рождаются свободными и равными в своем достоинстве и правах. "),
        ("koi8-r", "Все люди рождаются свободными и равными в своем достоинстве и правах. "),
        ("iso-8859-7", "Ολοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. "),
        ("iso-8859-2", "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. "),
        ("windows-1255", "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. "),
        ("shift_jis", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"),
        ("big5", "人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心,並應以兄弟關係的精神對待。"),
        ("euc-kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "),
    ],
)
def test_unlabelled_pages_are_detected(label: str, text: str) -> None:
    page = "<html><body><p>" + text * 3
    assert text_from_bytes(packed(page, label), None)[0] == page


def test_windows_1252_decodes_every_byte_as_browsers_do() -> None:
    text, encoding = text_from_bytes(bytes(range(1, 256)), "latin1")
    assert encoding == "cp1252"
    assert len(text) == 255
    assert text[0x80 - 1 : 0x82 - 1] == "€\x81"


def test_one_bad_byte_costs_one_character_of_a_utf8_page() -> None:
    good = ("Съешь же ещё этих мягких французских булок. " * 50).encode()
    text, encoding = text_from_bytes(good[:401] + b"\xff" + good[401:], "utf-8")
    assert encoding == "utf-8"
    assert text.replace("\ufffd", "").count("французских") >= 49


def test_nul_becomes_the_replacement_character() -> None:
    assert text_from_bytes(b"<p>a\0b", "utf-8") == ("<p>a\ufffdb", "utf-8")


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), label=st.sampled_from([None, "utf-16", "utf-7", "hz", "x-user-defined", *TEXTS]))
def test_no_bytes_raise_and_the_text_is_always_utf8_without_nul(body: bytes, label: str | None) -> None:
    text, _ = text_from_bytes(body, label)
    text.encode("utf-8")
    assert "\0" not in text
