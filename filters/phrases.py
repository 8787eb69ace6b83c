"""Phrases looked for all at once: a table of states that a kernel walks, one step per code point (Aho-Corasick)."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

# Characters that differ from a letter only by case for Python's re, besides its capital.
FURTHER_CASES = {"s": "ſ", "k": "K", "i": "İı"}
MOST = 32  # phrases: one bit of uint32 each


@dataclass(frozen=True, kw_only=True, eq=False)
class Phrases:
    """Begin in state 0; after a character the state is steps[state, symbols[code point]].

    found[state] has bit k set if phrase k ends there.
    """

    symbols: npt.NDArray[np.uint8]
    steps: npt.NDArray[np.int16]
    found: npt.NDArray[np.uint32]


def cases(character: str) -> str:
    """Every character that is this one when case is ignored."""
    lower = character.lower()
    return lower + character.upper() + FURTHER_CASES.get(lower, "")


@cache
def phrases(wanted: Sequence[str], *, any_case: bool = False) -> Phrases:
    """The table for up to 32 phrases with up to 255 different characters; 1 MB."""
    assert len(wanted) <= MOST, f"at most {MOST} phrases, not {len(wanted)}"
    texts = [phrase.lower() if any_case else phrase for phrase in wanted]
    alphabet = sorted(set("".join(texts)))
    number = {character: at for at, character in enumerate(alphabet, 1)}
    symbols = np.zeros(sys.maxunicode + 1, np.uint8)
    for character, at in number.items():
        symbols[[ord(case) for case in (cases(character) if any_case else character)]] = at
    trie: list[dict[int, int]] = [{}]
    bits = [0]
    for bit, text in enumerate(texts):
        state = 0
        for character in text:
            if number[character] not in trie[state]:
                trie[state][number[character]] = len(trie)
                trie.append({})
                bits.append(0)
            state = trie[state][number[character]]
        bits[state] |= 1 << bit
    return Phrases(symbols=symbols, steps=stepped(trie, bits, len(alphabet) + 1), found=np.array(bits, np.uint32))


def stepped(trie: list[dict[int, int]], bits: list[int], width: int) -> npt.NDArray[np.int16]:
    """Every step from every state of the trie; adds to a state's bits those of the phrases that end inside it."""
    steps = np.zeros((len(trie), width), np.int16)
    shorter = [0] * len(trie)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        bits[state] |= bits[shorter[state]]
        steps[state] = steps[shorter[state]]
        for symbol, after in trie[state].items():
            shorter[after] = 0 if state == 0 else int(steps[shorter[state], symbol])
            steps[state, symbol] = after
            queue.append(after)
    return steps
