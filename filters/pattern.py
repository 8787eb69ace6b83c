"""A regular expression as signals: how often it matches in a text, and the same per character.

RE2 never goes back: one search takes time linear in the text, whatever the expression. What cannot be searched that way
(back references, look-around) it refuses. To go from match to match can still be quadratic (`a+$|a` reads on to the end
of the text for every `a`), so at most `MOST` matches of a text are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

from filters.rule import Paper, Signal, Signals

MOST = 1_000
MOST_CHARACTERS = 1_000
PAPER = Paper(
    title="RE2: regular expressions in linear time",
    url="https://github.com/google/re2/wiki/Syntax",
    where="a regular expression of the recipe",
)


@cache
def compiled(regex: str) -> Any:
    """The expression, as RE2 searches the UTF-8 bytes of a text.

    Raises ValueError, with what RE2 says, for what RE2 does not know, and for what has nothing to count.
    """
    import re2

    if len(regex) > MOST_CHARACTERS:
        raise ValueError(f"the regex has {len(regex):,} characters; at most {MOST_CHARACTERS:,} are read")
    options = re2.Options()
    options.log_errors = False  # it is said once, by us
    try:
        found = re2.compile(regex.encode(), options)
    except re2.error as error:
        said = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"RE2 does not read this regex: {said}. It has no back references and no look-around"
        ) from error
    if found.search(b"") is not None:
        raise ValueError("the regex matches the empty text, and so it matches everywhere")
    return found


def pattern_signals(name: str) -> tuple[Signal, Signal]:
    """The two signals of a pattern: matches, and matches per character."""
    return (
        Signal(name=f"pattern.{name}", kind="count", says=f"matches of the regex, without overlap; at most {MOST:,}"),
        Signal(
            name=f"pattern.{name}_per_character",
            kind="ratio",
            says=f"matches of the regex, without overlap, at most {MOST:,} / characters",
        ),
    )


def matches(name: str, regex: str, texts: Sequence[str]) -> Signals:
    """Both signals for each of the texts. Costs up to `MOST` searches of a text; 5 microseconds a match."""
    from filters.batch import counted, integers, ratio

    search = compiled(regex).finditer
    # A str would be encoded all the same, and every match decoded: that is three times as slow.
    found = integers(sum(1 for _ in islice(search(text.encode("utf-8", "replace")), MOST)) for text in texts)
    count, per_character = pattern_signals(name)
    return {count.name: counted(found), per_character.name: ratio(found, integers(map(len, texts)))}
