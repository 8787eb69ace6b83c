"""Named places in the product where a test can make the process fail. Off unless the environment arms them.

`GRISTMILL_FAILPOINTS` holds settings parted by `;`. What may stand there:

    NAME=kill               SIGKILL to this very process
    NAME=raise:EIO          OSError with this errno (EIO, ENOSPC, ...)
    NAME=sleep:SECONDS      wait, then go on: a process that everybody else thinks dead
    NAME=ACTION,at:3        only the third time that the place is reached
    NAME=ACTION,p:0.2       each time with this probability, a hash of (seed, name, how often it was reached)
    seed=7                  for `p` [default: 0]
    counts=FOLDER           count over all processes that share this folder, not in each: a process that is started
                            again after a kill does not meet the same kill for ever. FOLDER/NAME grows by one byte
                            each time the place is reached, FOLDER/NAME.fired each time it fails

For instance `counts=/tmp/c;attempt.stored=kill,at:2;create.after=raise:EIO,p:0.1`.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from filters.errors import InputError

VARIABLE = "GRISTMILL_FAILPOINTS"
NAMES = (
    "attempt.begun",  # an attempt has a folder, and nothing in it
    "attempt.written",  # its files are written on this machine; none is hashed or in the store
    "attempt.stored",  # all its files are in the store; there is no manifest
    "create.before",  # a put-if-absent is about to be asked for
    "create.after",  # it was done, and nobody was told
    "run.rollup",  # every task of a segment is committed, the segment is not
    "publish.begun",  # run.json is withdrawn; the folders show what they showed
    "publish.half",  # a part was shown, others may not be
    "publish.shown",  # all parts are shown; run.json is not written
    "run.ended",  # run.json is written; the command has not said so
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What happens at a place, and when: the time number `at`, or each time with probability `odds`."""

    act: Callable[[], None]
    odds: float = 1.0
    at: int | None = None

    def strikes(self, seed: int, name: str, count: int) -> bool:
        """True where the place fails, the time number `count` that it is reached."""
        if self.at is not None:
            return count == self.at
        digest = hashlib.sha256(f"{seed} {name} {count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.odds * 2**64


@dataclass(frozen=True, kw_only=True)
class Armed:
    """What the environment asks for."""

    failures: Mapping[str, Failure]
    seed: int
    counts: Path | None
    reached: Mapping[str, itertools.count[int]] = field(
        default_factory=lambda: {name: itertools.count(1) for name in NAMES}
    )

    def count(self, name: str) -> int:
        """How often the place was reached, now included."""
        return next(self.reached[name]) if self.counts is None else appended(self.counts / name)


def failpoint(name: str) -> None:
    """Fail here if the environment says so; else do nothing. Raises InputError where it says what makes no sense."""
    if (said := os.environ.get(VARIABLE)) is None:
        return
    armed = armed_by(said)
    if (failure := armed.failures.get(name)) is None:
        return
    if failure.strikes(armed.seed, name, armed.count(name)):
        if armed.counts is not None:
            appended(armed.counts / f"{name}.fired")
        failure.act()


@cache
def armed_by(said: str) -> Armed:
    """The failures that a value of the variable asks for. Raises InputError naming what it does not know."""
    settings = [setting.strip().partition("=") for setting in said.split(";") if setting.strip()]
    values = {name: value for name, _, value in settings if name in ("seed", "counts")}
    failures = {}
    for name, _, value in settings:
        if name in values:
            continue
        if name not in NAMES:
            raise InputError(f"{VARIABLE}: there is no failpoint {name!r}; there are {', '.join(NAMES)}.")
        failures[name] = failure_of(value)
    try:
        seed = int(values.get("seed", "0"))
    except ValueError:
        raise InputError(f"{VARIABLE}: seed={values['seed']}: not an integer.") from None
    return Armed(failures=failures, seed=seed, counts=Path(values["counts"]) if "counts" in values else None)


def failure_of(said: str) -> Failure:
    """The failure in `ACTION[:DETAIL][,at:N][,p:P]`."""
    action, *qualifiers = said.split(",")
    verb, _, detail = action.partition(":")
    given = dict(qualifier.split(":", 1) for qualifier in qualifiers if ":" in qualifier)
    try:
        if len(given) != len(qualifiers) or not given.keys() <= {"at", "p"}:
            raise ValueError(f"only at:N and p:P may follow {verb}")
        return Failure(
            act=action_of(verb, detail),
            odds=float(given.get("p", 1.0)),
            at=int(given["at"]) if "at" in given else None,
        )
    except ValueError as error:
        raise InputError(f"{VARIABLE}: {said!r} is no failure: {error}.") from None


def action_of(verb: str, detail: str) -> Callable[[], None]:
    """The action of this name. Raises ValueError."""
    if verb == "kill" and not detail:
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if verb == "sleep":
        seconds = float(detail)
        return lambda: time.sleep(seconds)
    if verb == "raise" and detail in errno.errorcode.values():
        number: int = getattr(errno, detail)
        return lambda: raise_error(number)
    raise ValueError("an action is kill, raise:ERRNO or sleep:SECONDS")


def raise_error(number: int) -> None:
    """Raise the OSError of this number."""
    raise OSError(number, os.strerror(number))


def appended(path: Path) -> int:
    """Add a byte to a file, which is made if absent, and return how many it has: no two callers get the same."""
    held = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(held, b".")
        return os.lseek(held, 0, os.SEEK_CUR)
    finally:
        os.close(held)
