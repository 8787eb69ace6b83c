"""The scheduler's state machine: every task ends once, whatever attempts do, and within its capacity."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from filters.errors import TaskFailed
from infra.schedule import Patience, Schedule, Steps

ASKED = Patience(start_seconds=60, silence_seconds=30, task_seconds=1000, max_attempts=4)


@dataclass(frozen=True)
class Numbered:
    number: int

    @property
    def id(self) -> str:
        return f"task-{self.number}"


def tasks(count: int) -> list[Numbered]:
    return [Numbered(number) for number in range(count)]


def started(schedule: Schedule[Numbered], now: float, *, capacity: int = 1, slots: int = 1) -> list[int]:
    return [one.attempt for one in schedule.steps(now, capacity=capacity, slots=slots).start]


def idle(schedule: Schedule[Numbered], since: float, until: float, *, capacity: int = 1, slots: int = 1) -> None:
    """Call the schedule every five seconds, as its contract wants; nothing is to be done."""
    now = since
    while now < until:
        now = min(now + 5.0, until)
        assert schedule.steps(now, capacity=capacity, slots=slots) == Steps(start=(), abandon=())


def test_as_many_attempts_start_as_there_is_capacity_for_and_more_when_it_grows() -> None:
    schedule = Schedule(tasks(10), ASKED)
    assert len(started(schedule, 0.0, capacity=3)) == 3
    assert started(schedule, 1.0, capacity=3) == []
    assert len(started(schedule, 2.0, capacity=5)) == 2
    assert schedule.in_flight == 5


def test_tasks_are_drawn_only_when_they_can_start() -> None:
    drawn: list[int] = []

    def source() -> Iterator[Numbered]:
        for one in tasks(1000):
            drawn.append(one.number)
            yield one

    schedule = Schedule(source(), ASKED)
    started(schedule, 0.0, capacity=4)
    assert drawn == [0, 1, 2, 3]


def test_a_stage_without_tasks_is_finished() -> None:
    schedule: Schedule[Numbered] = Schedule([], ASKED)
    assert started(schedule, 0.0) == []
    assert schedule.finished


def test_an_attempt_that_falls_silent_is_replaced_and_its_late_result_ends_the_task() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    schedule.heard(first, 1.0)
    idle(schedule, 0.0, 31.0)
    steps = schedule.steps(31.1, capacity=1, slots=1)
    assert steps.abandon == steps.silent == (first,)
    ((second, lost),) = ((one.attempt, one.lost) for one in steps.start)
    assert lost == (first,)
    assert not schedule.believed(first)
    assert schedule.ended(first)
    assert schedule.steps(32.0, capacity=1, slots=1).abandon == (second,)
    assert schedule.finished
    assert not schedule.ended(second)


def test_an_attempt_that_is_heard_of_is_not_replaced_however_long_it_takes() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    for second in range(1, 1000):
        schedule.heard(first, float(second))
        assert started(schedule, float(second)) == []


def test_a_sign_of_life_after_an_attempt_was_given_up_changes_nothing() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    schedule.heard(first, 1.0)
    idle(schedule, 0.0, 31.0)
    (second,) = started(schedule, 40.0)
    schedule.heard(first, 41.0)
    assert not schedule.believed(first)
    schedule.died(first, "died")
    assert schedule.believed(second)
    assert schedule.ended(second)
    assert started(schedule, 42.0) == []
    assert schedule.finished


def test_an_attempt_that_waits_its_turn_on_a_busy_cluster_is_not_given_up() -> None:
    schedule = Schedule(tasks(2), ASKED)
    first, second = started(schedule, 0.0, capacity=2)
    for now in range(1, 900):
        schedule.heard(first, float(now))
        assert schedule.steps(float(now), capacity=2, slots=1).abandon == ()
    assert schedule.believed(second)


def test_an_attempt_never_heard_of_is_given_up_where_a_slot_stands_empty_and_the_next_gets_twice_the_time() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    idle(schedule, 0.0, 60.0)
    steps = schedule.steps(60.5, capacity=1, slots=1)
    assert steps.abandon == (first,)
    assert steps.silent == ()
    (second,) = (one.attempt for one in steps.start)
    idle(schedule, 60.5, 180.5)
    assert schedule.steps(181.0, capacity=1, slots=1).abandon == (second,)


def test_the_time_for_a_first_sign_begins_when_a_slot_is_empty() -> None:
    schedule = Schedule(tasks(2), ASKED)
    first, second = started(schedule, 0.0, capacity=2)
    for now in range(1, 100):
        schedule.heard(first, float(now))
        schedule.steps(float(now), capacity=2, slots=1)
    assert schedule.ended(first)
    idle(schedule, 95.0, 160.0, capacity=2)
    assert schedule.steps(161.0, capacity=2, slots=1).abandon == (second,)


def test_attempts_that_no_cluster_takes_never_fail_their_task() -> None:
    schedule = Schedule(tasks(1), ASKED)
    started(schedule, 0.0)
    for hour in range(100):
        schedule.steps(3600.0 * hour, capacity=1, slots=1)
    assert schedule.in_flight == 1


def test_an_overdue_attempt_gets_company_and_either_may_end_the_task() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    for now in range(0, 1001, 10):
        schedule.heard(first, float(now))
        assert started(schedule, float(now)) == []
    schedule.heard(first, 1001.0)
    (second,) = started(schedule, 1001.0)
    assert schedule.believed(first)
    assert schedule.ended(first)
    assert schedule.steps(1002.0, capacity=1, slots=1).abandon == (second,)
    assert schedule.finished


def test_an_overdue_attempt_that_dies_counts_once() -> None:
    schedule = Schedule(tasks(1), replace(ASKED, max_attempts=2))
    (first,) = started(schedule, 0.0)
    schedule.heard(first, 0.0)
    for now in range(0, 1001, 10):
        schedule.heard(first, float(now))
        schedule.steps(float(now), capacity=1, slots=1)
    (second,) = started(schedule, 1001.0)
    schedule.died(first, "died")
    assert schedule.ended(second)


def test_a_task_whose_attempts_die_fails_by_name_with_the_last_reason_and_what_to_do() -> None:
    schedule = Schedule(tasks(1), ASKED)
    for _ in range(3):
        (attempt,) = started(schedule, 0.0)
        schedule.died(attempt, "died (WorkerCrashedError)")
    (attempt,) = started(schedule, 0.0)
    with pytest.raises(TaskFailed, match=r"task task-0: 4 attempts .* died \(OutOfMemoryError\)\. .*--task-size"):
        schedule.died(attempt, "died (OutOfMemoryError)")


def test_a_lost_task_comes_before_a_new_one() -> None:
    schedule = Schedule(tasks(3), ASKED)
    (first,) = started(schedule, 0.0)
    schedule.died(first, "died")
    (again,) = schedule.steps(0.0, capacity=1, slots=1).start
    assert again.task == Numbered(0)


def test_a_driver_that_was_away_loses_nobody_if_it_first_says_what_it_heard() -> None:
    schedule = Schedule(tasks(1), ASKED)
    (first,) = started(schedule, 0.0)
    schedule.heard(first, 1.0)
    schedule.heard(first, 900.0)
    assert schedule.steps(900.0, capacity=1, slots=1).abandon == ()


def test_a_driver_that_was_deaf_counts_silence_anew_when_it_is_back() -> None:
    schedule = Schedule(tasks(3), ASKED)
    first, second, unheard = started(schedule, 0.0, capacity=3, slots=3)
    schedule.heard(first, 1.0)
    schedule.heard(second, 1.0)
    idle(schedule, 0.0, 10.0, capacity=3, slots=3)
    assert schedule.steps(900.0, capacity=3, slots=3) == Steps(start=(), abandon=())
    for now in range(901, 931):
        schedule.heard(second, float(now))
        assert schedule.steps(float(now), capacity=3, slots=3).abandon == ()
    assert schedule.steps(931.0, capacity=3, slots=3).silent == (first,)
    assert schedule.believed(unheard)


def test_an_attempt_that_failed_is_tried_again_after_a_rest_and_others_go_on_meanwhile() -> None:
    schedule = Schedule(tasks(2), replace(ASKED, rest_seconds=10))
    (first,) = started(schedule, 5.0)
    schedule.died(first, "failed", rests=True)
    (other,) = started(schedule, 5.0)
    assert schedule.ended(other)
    idle(schedule, 5.0, 14.9)
    assert not schedule.finished
    (again,) = schedule.steps(15.0, capacity=1, slots=1).start
    assert (again.task, again.lost) == (Numbered(0), (first,))


def test_what_to_do_about_a_lost_task_depends_on_how_it_was_lost() -> None:
    schedule = Schedule(tasks(1), replace(ASKED, max_attempts=1))
    (first,) = started(schedule, 0.0)
    with pytest.raises(TaskFailed) as caught:
        schedule.died(first, "failed: PermissionError: [Errno 13]", advice="")
    assert "the last one failed: PermissionError: [Errno 13]. What is committed stays" in str(caught.value)
    assert "memory" not in str(caught.value)
    schedule = Schedule(tasks(1), replace(ASKED, max_attempts=1))
    (first,) = started(schedule, 0.0)
    with pytest.raises(TaskFailed, match="had not ended after 10.. s.*--task-deadline"):
        for now in range(0, 1100, 5):
            schedule.heard(first, float(now))
            schedule.steps(float(now), capacity=1, slots=1)


def test_overdue_attempts_hold_slots_for_which_others_wait() -> None:
    """Four slots held by overdue attempts: those that take their places wait for a free one, and are not given up."""
    schedule = Schedule(tasks(8), replace(ASKED, task_seconds=100))
    first = started(schedule, 0.0, capacity=4, slots=4)
    for now in range(0, 400, 2):
        for attempt in first:
            schedule.heard(attempt, float(now))
        assert schedule.steps(float(now), capacity=4, slots=4).abandon == ()
    assert schedule.in_flight == 4


def test_heartbeats_are_spread_so_that_the_driver_sees_a_bounded_number() -> None:
    schedule = Schedule(tasks(20_000), ASKED)
    starts = schedule.steps(0.0, capacity=10_000, slots=5_000).start
    assert starts[0].beat_seconds == ASKED.beat_seconds
    assert starts[-1].beat_seconds == pytest.approx(10_000 / ASKED.beats_per_second, rel=0.01)
    attempt = starts[-1].attempt
    schedule.heard(attempt, 0.0)
    lost = [attempt in schedule.steps(now, capacity=10_000, slots=5_000).silent for now in range(0, 400, 5)]
    assert 5 < 5 * lost.index(True) / starts[-1].beat_seconds < 7


@dataclass(order=True)
class Event:
    at: float
    kind: str
    attempt: int


class FaultyCluster:
    """Attempts that start late or never, die, fall silent, become zombies that end late, or end twice."""

    def __init__(self, seed: int, count: int, capacity: int) -> None:
        self.rng = random.Random(seed)
        self.schedule = Schedule(tasks(count), replace(ASKED, max_attempts=1000))
        self.capacity = capacity
        self.events: list[Event] = []
        self.task_of: dict[int, int] = {}
        self.ended: Counter[int] = Counter()
        self.most = 0

    def begin(self, attempt: int, now: float) -> None:
        rng = self.rng
        fate = rng.random()
        if fate < 0.03:
            return  # sits on a cut link for ever
        at = now + rng.expovariate(1 / 2)
        ends = at + rng.expovariate(1 / 40)
        silent = at + rng.uniform(0, 60) if fate < 0.10 else float("inf")
        dies = fate > 0.93
        while at < min(ends, silent):
            heapq.heappush(self.events, Event(at, "heard", attempt))
            at += 2.0
        late = rng.uniform(0, 300) if silent < ends else 0.0
        heapq.heappush(self.events, Event(ends + late, "died" if dies else "ended", attempt))
        if rng.random() < 0.05:
            heapq.heappush(self.events, Event(ends + late + 1, "ended", attempt))

    def run(self) -> None:
        now = 0.0
        while not self.schedule.finished:
            while self.events and self.events[0].at <= now:
                self.tell(heapq.heappop(self.events))
            steps = self.schedule.steps(now, capacity=self.capacity, slots=self.capacity // 2)
            self.most = max(self.most, self.schedule.in_flight)
            for one in steps.start:
                self.task_of[one.attempt] = one.task.number
                self.begin(one.attempt, now)
            now += 0.5
            if self.rng.random() < 0.001:
                self.capacity = self.rng.randint(4, 64)

    def tell(self, event: Event) -> None:
        if event.kind == "heard":
            self.schedule.heard(event.attempt, event.at)
        elif event.kind == "died":
            self.schedule.died(event.attempt, "died")
        elif self.schedule.ended(event.attempt):
            self.ended[self.task_of[event.attempt]] += 1


@pytest.mark.parametrize("seed", range(8))
def test_under_random_faults_every_task_ends_exactly_once_and_capacity_holds(seed: int) -> None:
    simulated = FaultyCluster(seed, 400, 64)
    simulated.run()
    assert simulated.ended == Counter({number: 1 for number in range(400)})
    assert simulated.most <= 64
    assert simulated.schedule.in_flight == 0
    assert not simulated.schedule._known


def test_an_event_costs_the_same_however_many_are_in_flight() -> None:
    """Seconds for an event with 100 and with 20,000 in flight, the best of three, differ by less than 10 times."""

    def seconds(in_flight: int) -> float:
        count = 20_000
        schedule = Schedule(tasks(count + in_flight), ASKED)
        starts = list(schedule.steps(0.0, capacity=in_flight, slots=in_flight).start)
        begun = time.perf_counter()
        for number in range(count):
            attempt = starts[number].attempt
            schedule.heard(attempt, 1.0)
            schedule.ended(attempt)
            starts += schedule.steps(1.0, capacity=in_flight, slots=in_flight).start
        return (time.perf_counter() - begun) / count

    assert min(seconds(20_000) for _ in range(3)) < 10 * min(seconds(100) for _ in range(3))


def test_an_attempt_that_tells_of_new_steps_is_never_overdue_and_one_that_repeats_itself_is() -> None:
    for moving in (True, False):
        schedule = Schedule(tasks(1), ASKED)
        (attempt,) = started(schedule, 0.0, capacity=2)
        for now in range(1, 3 * int(ASKED.task_seconds), 5):
            schedule.heard(attempt, float(now), now if moving else 7)
            steps = schedule.steps(float(now), capacity=2, slots=2)
            if steps.start:
                break
        assert bool(steps.start) == (not moving)
        assert not moving or schedule.ended(attempt)


def test_a_step_that_was_told_before_does_not_put_the_deadline_off() -> None:
    schedule = Schedule(tasks(2), ASKED)
    first, second = started(schedule, 0.0, capacity=2, slots=2)
    overdue: list[str] = []
    for now in range(1, 1200, 5):
        schedule.heard(first, float(now), now)
        schedule.heard(second, float(now), min(now, 100))
        overdue += [one.task.id for one in schedule.steps(float(now), capacity=2, slots=2).start]
    assert overdue == ["task-1"]
