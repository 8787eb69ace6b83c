"""Before the first task: every node is asked whether it is like the driver, and one error names all that are not."""

from __future__ import annotations

import pickle
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from filters.errors import PreflightFailed
from infra.node import WAYS_OUT, Check, Probe, expected_environment, faults, installed
from infra.work import Task
from pipelines.recipe import Language, Recipe
from pipelines.record import Source
from pipelines.resources import RESOURCES, resource_path, resource_sha256

# A node may have to fetch our code and start a Python that imports everything: 5 s here, more from a cold disk.
ANSWER_SECONDS = 120.0
POLL_SECONDS = 2.0
SOURCES_LOOKED_AT = 3


def covers(check: Check, task: Task) -> bool:
    """True where a node that passes the check has this task's store, packages, models and lists."""
    recipe = recipe_of(task)
    return (
        check.probe.url == task.store.url
        and resources_of(recipe).items() <= check.resources.items()
        and packages_of(task).items() <= check.environment.packages.items()
    )


def recipe_of(task: Task) -> Recipe | None:
    """The recipe of a task that decides documents: a cut and a pack need none."""
    options = getattr(task, "options", None)
    return None if options is None else options.recipe


def check_for(task: Task) -> Check:
    """What nodes must have to do tasks like this one. Puts a probe into its store, to be removed at the end."""
    probe = Probe(url=task.store.url, name=f"_work/preflight/{uuid.uuid4().hex}", data=secrets.token_bytes(32))
    task.store.create(probe.name, probe.data)
    recipe, expected = recipe_of(task), expected_environment()
    return Check(
        environment=replace(expected, packages={**expected.packages, **packages_of(task)}),
        probe=probe,
        resources=resources_of(recipe),
        sources=pickle.dumps(sources_of(task)[:SOURCES_LOOKED_AT]),
    )


def packages_of(task: Task) -> dict[str, str | None]:
    """The distributions that bear on what the task makes beside ours, with the driver's releases: those of the recipe's
    own rules, and what trains and tokenises.
    """
    recipe = recipe_of(task)
    own = tuple(recipe.packages) if recipe is not None else ()
    return {name: installed(name) for name in (*own, *getattr(task, "packages", ()))}


def resources_of(recipe: Recipe | None) -> dict[str, str]:
    """Models and lists by name, or path, with their sha256: ours, and those that the recipe names by path."""
    names = dict.fromkeys(RESOURCES)
    if recipe is not None and isinstance(language := recipe.step(Language), Language):
        names[language.model] = None
    for name in names:
        resource_path(name)
    return {name: resource_sha256(name) for name in names} | (dict(recipe.models) if recipe is not None else {})


def sources_of(task: Task) -> list[Source]:
    """The files that a task reads, if it reads input."""
    if (source := getattr(task, "source", None)) is not None:
        return [source]
    return list({one.source.url: one.source for one in getattr(task, "slices", ())}.values())


def preflight(ray: Any, check: Check) -> None:
    """Raise PreflightFailed, naming each node and what is wrong there, unless every node that is up passes.

    A node that is lost meanwhile is no longer asked; one that comes later is looked at by its first task.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in alive(ray).values():
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(faults)
        asked[remote.remote(check)] = node
    deadline = time.monotonic() + ANSWER_SECONDS
    waiting = list(asked)
    while waiting and time.monotonic() < deadline:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
        still = alive(ray)
        waiting = [reference for reference in waiting if asked[reference]["NodeID"] in still]
    still = alive(ray)
    wrong = {node_name(node): answer(ray, reference) for reference, node in asked.items() if node["NodeID"] in still}
    if any(wrong.values()):
        raise PreflightFailed(report(wrong))


def alive(ray: Any) -> dict[str, Mapping[str, Any]]:
    """The nodes that are up, by id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def node_name(node: Mapping[str, Any]) -> str:
    """A node as people look for it: address, host, and the beginning of Ray's id."""
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']}, {node['NodeID'][:8]})"


def answer(ray: Any, reference: Any) -> tuple[str, ...]:
    """What a node said is wrong there, or why it said nothing."""
    try:
        said: tuple[str, ...] = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return (f"no answer within {ANSWER_SECONDS:.0f} s: look at `ray status` and at its logs",)
    except ray.exceptions.RayTaskError as error:
        return (f"Gristmill cannot be loaded there: {str(error).strip().splitlines()[-1]}",)
    except ray.exceptions.RayError as error:
        return (f"no answer ({type(error).__name__}): {str(error).strip().splitlines()[0]}",)
    return said


def report(wrong: Mapping[str, Iterable[str]]) -> str:
    """One message for all nodes, and the ways out."""
    lines = [f"node {name}: {fault}" for name, said in sorted(wrong.items()) for fault in said]
    fit = sum(not tuple(said) for said in wrong.values())
    head = f"{len(wrong) - fit} of {len(wrong)} nodes cannot do this run; nothing was started."
    return "\n".join([head, *(f"  {line}" for line in lines), WAYS_OUT])
