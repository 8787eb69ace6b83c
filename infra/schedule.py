"""Which attempts of tasks to start, which to give up for lost, and when a task has failed. Pure: no clock, no I/O.

Something else starts attempts and tells what it hears of them; `now` is any clock that only goes forward. A task ends
with the first result of any of its attempts, also of one that was given up: a commit is put-if-absent, so attempts may
overlap. Only tasks that have begun and not ended are held, and every event costs O(1).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from filters.errors import TaskFailed


class Named(Protocol):
    """What a schedule needs of a task: a name for messages."""

    @property
    def id(self) -> str:
        """The name."""
        ...


Task = TypeVar("Task", bound=Named)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds, and how often to try. Heartbeats are spread to `beats_per_second`.

    `rest_seconds` lie between an attempt that failed and the next of its task: a machine may recover meanwhile.
    """

    start_seconds: float = 60.0
    silence_seconds: float = 30.0
    task_seconds: float = 6 * 3600.0
    max_attempts: int = 4
    rest_seconds: float = 10.0
    beat_seconds: float = 2.0
    beats_per_second: float = 200.0


BEATS_OF_SILENCE = 6
"""Heartbeats in a row that must be missing before an attempt is lost."""
FREE_SHARE = 0.1
"""Of the slots, the share that may stand empty without meaning that attempts wait for nothing. A slot is empty for
about 2 s between two tasks; where attempts wait more than 60 s for one, that is 3 % of the time."""
PATIENT_LEVELS = 5
"""The wait for a first sign doubles with each attempt that gave none, up to 2 ** 4 times `start_seconds`."""
OF_MEMORY = (
    "Look for the kernel's out-of-memory messages and at the nodes' logs; fewer --workers or a smaller --task-size "
    "need less memory."
)
OF_TIME = "A smaller --task-size takes less time, a longer --task-deadline allows more."


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Generic[Task]):
    """An attempt to start. It is to be heard of at once, and then every `beat_seconds`.

    `lost` are the attempts of the same task that died or fell silent before.
    """

    attempt: int
    task: Task
    beat_seconds: float
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps(Generic[Task]):
    """What to do now: attempts to start, and attempts that nobody waits for any more; `silent` ones among them."""

    start: tuple[Start[Task], ...]
    abandon: tuple[int, ...]
    silent: tuple[int, ...] = ()


@dataclass(slots=True)
class Begun(Generic[Task]):
    """A task that has begun: attempts spent (died, silent or overdue), attempts never heard of, all known ones."""

    task: Task
    spent: int = 0
    unheard: int = 0
    attempts: set[int] = field(default_factory=set)
    lost: list[int] = field(default_factory=list)
    ended: bool = False


class Schedule(Generic[Task]):
    """The state of a stage. Call `steps` often; tell `heard`, `ended` and `died` as it happens."""

    def __init__(self, tasks: Iterable[Task], patience: Patience = Patience()) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self._patience = patience
        self._silence = patience.silence_seconds
        self._known: dict[int, Begun[Task]] = {}
        self._again: deque[Begun[Task]] = deque()
        self._resting: deque[tuple[float, Begun[Task]]] = deque()
        self._abandon: list[int] = []
        # Each in the order of its times, and with one waiting time, so that only the first can be due.
        self._unheard: tuple[OrderedDict[int, float], ...] = tuple(OrderedDict() for _ in range(PATIENT_LEVELS))
        self._young: OrderedDict[int, float] = OrderedDict()
        self._last_heard: OrderedDict[int, float] = OrderedDict()
        self._reached: dict[int, int] = {}
        self._free_since: float | None = None
        self._now = float("-inf")
        self._begun = 0
        self._open = 0
        self._exhausted = False

    @property
    def finished(self) -> bool:
        """True when every task has ended."""
        return self._exhausted and self._open == 0

    @property
    def in_flight(self) -> int:
        """Attempts that are counted on: neither given up nor overdue."""
        return len(self._young) + sum(map(len, self._unheard))

    @property
    def running(self) -> int:
        """Those of them that have been heard of."""
        return len(self._young)

    def steps(self, now: float, *, capacity: int, slots: int) -> Steps[Task]:
        """What to do now, with at most `capacity` attempts in flight on a cluster that can run `slots` at a time.

        Silence counts while this is called: after a gap of more than half of what is waited for, it counts anew.
        Raises TaskFailed where a task has used up its attempts.
        """
        self._count_silence_anew(now)
        silent = self._give_up_silent(now)
        self._replace_overdue(now)
        self._give_up_unheard(now, slots)
        start = []
        while self.in_flight < capacity and (begun := self._next()) is not None:
            beat = max(self._patience.beat_seconds, self.in_flight / self._patience.beats_per_second)
            self._silence = max(self._silence, BEATS_OF_SILENCE * beat)
            self._begun += 1
            begun.attempts.add(self._begun)
            self._known[self._begun] = begun
            self._unheard[min(begun.unheard, PATIENT_LEVELS - 1)][self._begun] = now
            start.append(Start(attempt=self._begun, task=begun.task, beat_seconds=beat, lost=tuple(begun.lost)))
        abandon, self._abandon = tuple(self._abandon), []
        return Steps(start=tuple(start), abandon=abandon, silent=silent)

    def heard(self, attempt: int, now: float, step: int | None = None) -> None:
        """Note a sign of life. One of an attempt that was given up changes nothing: another is on its way.

        With a step beyond all that it told before, the deadline counts anew: long work that moves is not overdue.
        """
        if attempt in self._last_heard:
            self._last_heard[attempt] = now
            self._last_heard.move_to_end(attempt)
            if step is not None and step > self._reached.get(attempt, -1) and attempt in self._young:
                self._reached[attempt], self._young[attempt] = step, now
                self._young.move_to_end(attempt)
            return
        for waiting in self._unheard:
            if waiting.pop(attempt, None) is not None:
                self._young[attempt] = self._last_heard[attempt] = now

    def ended(self, attempt: int) -> bool:
        """Note a result; True where it is the first of its task. The task's other attempts are abandoned."""
        begun = self._known.get(attempt)
        if begun is None:
            return False
        begun.ended = True
        self._open -= 1
        for one in sorted(begun.attempts):
            del self._known[one]
            if self._forget(one) and one != attempt:
                self._abandon.append(one)
        return True

    def died(self, attempt: int, why: str, *, advice: str = OF_MEMORY, rests: bool = False) -> None:
        """Note that an attempt is gone, its worker or node dead. Raises TaskFailed, with the advice, after the last.

        With `rests` the attempt has failed, and the next one of its task starts only after the rest.
        """
        begun = self._known.pop(attempt, None)
        if begun is None:
            return
        begun.attempts.discard(attempt)
        counted = attempt in self._young or any(attempt in waiting for waiting in self._unheard)
        self._forget(attempt)
        if attempt not in begun.lost:
            begun.lost.append(attempt)
        if counted:
            self._spend(begun, why, advice, rests=rests)

    def believed(self, attempt: int) -> bool:
        """True for an attempt whose task is open and that was not given up: an error that it raises is the task's."""
        return attempt in self._last_heard or any(attempt in waiting for waiting in self._unheard)

    def _next(self) -> Begun[Task] | None:
        while self._resting and self._resting[0][0] <= self._now:
            self._again.append(self._resting.popleft()[1])
        while self._again:
            if not (begun := self._again.popleft()).ended:
                return begun
        for task in self._tasks:
            self._open += 1
            return Begun(task)
        self._exhausted = True
        return None

    def _forget(self, attempt: int) -> bool:
        """Stop waiting for an attempt; True where it was waited for."""
        self._young.pop(attempt, None)
        self._reached.pop(attempt, None)
        found = self._last_heard.pop(attempt, None) is not None
        for waiting in self._unheard:
            found = waiting.pop(attempt, None) is not None or found
        return found

    def _spend(self, begun: Begun[Task], why: str, advice: str, *, rests: bool = False) -> None:
        begun.spent += 1
        if begun.spent >= self._patience.max_attempts:
            said = [f"task {begun.task.id}: {begun.spent} attempts were lost; the last one {why}.", advice]
            said += ["What is committed stays, and the same command tries the rest again."]
            raise TaskFailed(" ".join(filter(None, said)))
        if rests:
            self._resting.append((self._now + self._patience.rest_seconds, begun))
        else:
            self._again.append(begun)

    def _count_silence_anew(self, now: float) -> None:
        """Nobody is lost because this process was away (stopped, waiting for a store) or could not hear."""
        if now - self._now > self._silence / 2:
            self._last_heard = OrderedDict.fromkeys(self._last_heard, now)
            self._free_since = None
        self._now = now

    def _give_up_silent(self, now: float) -> tuple[int, ...]:
        silent = []
        for attempt, last in due(self._last_heard, now - self._silence):
            counted = attempt in self._young
            self._forget(attempt)
            self._abandon.append(attempt)
            silent.append(attempt)
            self._known[attempt].lost.append(attempt)
            if counted:
                self._spend(self._known[attempt], f"was not heard of for {now - last:.0f} s", OF_MEMORY)
        return tuple(silent)

    def _replace_overdue(self, now: float) -> None:
        for attempt, first in due(self._young, now - self._patience.task_seconds):
            del self._young[attempt]
            self._spend(self._known[attempt], f"had not ended after {now - first:.0f} s", OF_TIME)

    def _give_up_unheard(self, now: float, slots: int) -> None:
        """Give up attempts that were never heard of, if slots stood empty meanwhile: else they wait for their turn.

        This does not count as lost: a cluster may be slow to start workers, or short of what a task asks for.
        """
        # Overdue attempts hold their slots, too.
        if len(self._last_heard) >= (1 - FREE_SHARE) * slots:
            self._free_since = None
            return
        if self._free_since is None:
            self._free_since = now
        for level, waiting in enumerate(self._unheard):
            patience = self._patience.start_seconds * 2**level
            if now - self._free_since <= patience:
                break
            for attempt, _ in due(waiting, now - patience):
                del waiting[attempt]
                self._abandon.append(attempt)
                begun = self._known[attempt]
                begun.unheard += 1
                self._again.append(begun)


def due(times: OrderedDict[int, float], before: float) -> Iterator[tuple[int, float]]:
    """The entries of an ordered mapping whose time lies before this; the caller removes each."""
    while times:
        attempt = next(iter(times))
        if times[attempt] >= before:
            return
        yield attempt, times[attempt]
