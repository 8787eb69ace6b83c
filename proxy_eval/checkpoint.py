"""What a run needs to go on bit for bit: one file in its folder, replaced whole, and a file for each endpoint reached.

`state.safetensors` holds weights, moments and losses so far of the trunk and, within a decay, of the branch, and what
they took; its metadata says of which run it is. `endpoint-TOKENS.safetensors` is written before any state that lies
behind it. No other file is kept: a folder never holds more than the endpoints and twice the state, that is while it is
replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from filters.errors import OutputError

STATE = "state.safetensors"


def endpoint_name(tokens: int) -> str:
    """The file of the endpoint at so many tokens."""
    return f"endpoint-{tokens}.safetensors"


def write(path: Path, run: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """The file holds these tensors of this run; a reader sees the file that was there before, or all of this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch, {"run": json.dumps(run)})
    with scratch.open("rb") as written:
        os.fsync(written.fileno())
    scratch.replace(path)


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """JSON as one value for each dotted name: {"a": [{"b": 1}]} is {"a.0.b": 1}."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= flattened(inner, f"{name}.{key}" if name else str(key))
    return found


def read(path: Path, run: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """The tensors, on the CPU; None where there is no such file. OutputError if it is of another run."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            refuse_other_run(path, json.loads(metadata.get("run", "{}")), json.loads(json.dumps(run)))
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise OutputError(f"{path} cannot be read: {error}; remove the folder to train anew") from error


def refuse_other_run(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise OutputError that names up to three values in which two descriptions of a run differ."""
    stored, wanted = flattened(there), flattened(here)
    differing = [name for name in {**wanted, **stored} if stored.get(name) != wanted.get(name)]
    if differing:
        shown = ", ".join(f"{name} is {stored.get(name)} there, {wanted.get(name)} here" for name in differing[:3])
        raise OutputError(f"{path} is of another run: {shown}; give another folder, or remove it to train anew")
