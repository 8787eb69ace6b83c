"""Texts in which simplification, words and chunks could go wrong; lone surrogates apart, on which datatrove raises."""

from hypothesis import strategies as st

HOSTILE = (
    "İ Σ ΑΣ ΣΑΣ ςσ a b é ñ ﬁ ß Å K ½ ℃ ™ 가 한국어 日本語。 漢字 مرحبا \u202e ไทย हिन्दी 𑄣 😀 👍🏽 \u200d ❤️ 🇫🇷 0 1 12 "
    "1,5 1.5 1.2.3 1, ٣ ٣٫٥ ١٬٢ ५ 𝟙 \U00011f50 ٣⎖5 . , ، ٫ ⎘ ! — - _ ' ’ ‘ “ ” … ¿ § $ € £ @ # % & * ( ) [ ] { } "
    "< > = ; ` ≮ ≯ ≠ \u037e \u1fef ≮space≯ ‘s s ;) :( can't cannot don't dont U.S. a.m. 10am 5GB 0km b.org a@b.c "
    "\u0301 \u0316 \u0345 \u034f \u302e \U0001d165 \U0001d16d \ua953 \ufe0f \ufeff \xad \u180e \u200b \0 \x1b \x7f"
)
BLANK = " \n\t\x0b\x0c\x1c\x1f\x85\xa0\u2007\u2028\u3000"

pieced = st.lists(
    st.tuples(st.sampled_from(HOSTILE.split(" ")), st.sampled_from([*BLANK, "  ", "\r\n", ""])), max_size=30
).map(lambda pairs: "".join(piece + blank for piece, blank in pairs))
hostile = st.one_of(pieced, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
