"""Where attempts run, as far as was heard, and which nodes the next ones are to be kept from. Pure: no Ray, no clock.

Nothing but time depends on it. Ray gives new tasks to a node whose link is cut until it has noticed, which takes a
minute; and of all nodes the one whose disk is full has a slot free.
"""

from __future__ import annotations

from collections.abc import Iterable


class Places:
    """Nodes by Ray's ids. Of attempts that ended well nothing is kept."""

    def __init__(self) -> None:
        self._node_of: dict[int, str] = {}
        self._silent: set[str] = set()
        self._unfit: set[int] = set()

    def heard(self, attempt: int, node: str, *, believed: bool) -> None:
        """Note a sign of life. Its node is silent no more, also where nobody waits for this attempt any longer."""
        self._silent.discard(node)
        if believed or attempt in self._node_of:
            self._node_of[attempt] = node

    def ended(self, attempt: int) -> None:
        """Forget an attempt that ended well."""
        self._node_of.pop(attempt, None)

    def lost(self, attempt: int) -> None:
        """Note that an attempt died or failed; where it ran may be heard only now."""
        self._node_of.setdefault(attempt, "")

    def silent(self, attempt: int) -> None:
        """Note that an attempt fell silent: nothing is sent to its node until something is heard from there."""
        if node := self._node_of.setdefault(attempt, ""):
            self._silent.add(node)

    def unfit(self, attempt: int) -> None:
        """Note that the node of this attempt cannot do tasks of this run."""
        node = self._node_of.setdefault(attempt, "")
        if not node or node not in self._nodes(self._unfit):
            self._unfit.add(attempt)

    def avoided(self, lost: Iterable[int]) -> frozenset[str]:
        """Nodes to keep the next attempt of a task from, of which these attempts were lost."""
        return self._nodes(self._unfit) | self._nodes(lost) | self._silent

    def _nodes(self, attempts: Iterable[int]) -> frozenset[str]:
        return frozenset(node for one in attempts if (node := self._node_of.get(one)))
