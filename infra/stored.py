"""What a run writes to: the protocol of stores, and what they give back.

A store can create a name if it is absent (what commits rest on), read, list and remove. Names are relative, with
slashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from filters.errors import OutputError, VerifyFailed
from pipelines.patience import ShortRead, patiently

T = TypeVar("T")

ATTEMPTS, MANIFESTS, CONFLICTS = "_work/attempts", "_work/manifests", "_work/conflicts"
LOCK = "_work/lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Files in the making: `folder` on this machine, `name` in the store. No other attempt has either."""

    folder: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One file of a store: its name, bytes, and when it was written by the store's clock, in seconds."""

    name: str
    bytes: int
    written: float


class Store(Protocol):
    """Names are relative, with slashes. Every method raises OutputError where the store cannot be used; a file that
    `open` gave raises what files do (OSError; InputError and InputChanged where it is remote).
    """

    @property
    def url(self) -> str:
        """What a person calls it."""
        ...

    @property
    def is_remote(self) -> bool:
        """True where answers come over a network, and may be cut short."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create `name` holding `data`, whole or not at all; return False, and change nothing, where it exists.

        True also where it exists because this very call stored it and the answer was lost.
        """
        ...

    def read(self, name: str) -> bytes:
        """The bytes of `name`. Raises FileNotFoundError."""
        ...

    def size(self, name: str) -> int:
        """How many bytes `name` has, as the store says. Raises FileNotFoundError."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Store `data` as `name`, whatever was there."""
        ...

    def listed(self, folder: str, prefix: str = "") -> Iterable[Stored]:
        """Every file below `folder` whose name in it begins with `prefix`, in no order."""
        ...

    def top(self) -> set[str]:
        """The names that lie in the store itself, not below another; none where it does not exist."""
        ...

    def open(self, name: str, size: int) -> BinaryIO:
        """Open a file of `size` bytes for reading at any place. Raises FileNotFoundError."""
        ...

    def attempt(self, task: str) -> Any:
        """A context that yields an Attempt."""
        ...

    def keep(self, attempt: Attempt, path: Path) -> str:
        """Return the name of a file of the attempt, now that its bytes are in the store and outlive this machine."""
        ...

    def show(self, folder: str, files: Sequence[tuple[str, str]]) -> None:
        """Let `folder` hold these files, (stored name, name in the folder), and no other parts."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error."""
        ...

    def prune(self, folder: str, before: float) -> None:
        """Remove the empty folders below `folder` that nobody has touched since then, by the store's clock."""
        ...

    def now(self) -> float:
        """Seconds on the clock that `Stored.written` is read from."""
        ...

    def locked(self, *, take_over: bool) -> Any:
        """A context that one command at a time can be in. Raises OutputError where another is."""
        ...

    def lock_names(self) -> set[str]:
        """The names that hold the lock for the command that is in it."""
        ...


def read_decoded(store: Store, name: str, decode: Callable[[bytes], T]) -> T:
    """What `decode` makes of an object that was written whole. Some servers cut an answer short and call it whole:
    what cannot be decoded is read again. Raises VerifyFailed where it stays so, and FileNotFoundError.
    """

    def once() -> T:
        try:
            return decode(store.read(name))
        except ValueError as error:
            raise ShortRead(str(error)) from error

    try:
        return patiently(once) if store.is_remote else once()
    except ShortRead as error:
        raise VerifyFailed(f"{store.url}/{name} is not what was written ({error}). Restore it.") from error


def unusable(where: object, error: BaseException) -> OutputError:
    """What to say of a store that fails."""
    return OutputError(
        f"{where}: cannot be used ({error}). Free space, check your access, or choose another --out; what is committed "
        "stays, and the same command continues."
    )


@contextmanager
def usable(where: object) -> Iterator[None]:
    """Raise OutputError naming the place where the block meets an error of a store or a disk."""
    try:
        yield
    except OSError as error:
        raise unusable(where, error) from error
