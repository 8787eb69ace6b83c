"""Where a run writes: a local folder, or a prefix of an object store. Both are frozen values that pickle."""

from __future__ import annotations

import re
from pathlib import Path

from filters.errors import InputError, OutputError
from infra.local_store import LocalStore
from infra.object_store import CONDITIONAL, ObjectStore
from infra.stored import Store
from pipelines.storage import file_system, local_path, refuse_credentials


def open_store(given: str | Path) -> Store:
    """The store at a path or URL. Nothing is asked of it yet.

    Raises OutputError where the protocol has no put-if-absent, or cannot be used here.
    """
    if isinstance(given, Path):
        return LocalStore(given.absolute())
    refuse_credentials(given)
    if (local := local_path(given)) is not None:
        if re.match(r"\w+:/", given) and not given.startswith("file:///"):
            raise OutputError(f"{given}: neither a path nor a URL. Write s3://BUCKET/FOLDER, file:///FOLDER or a path.")
        return LocalStore(local.absolute())
    protocol, _, rest = given.partition("://")
    if "::" in given or protocol not in CONDITIONAL:
        raise OutputError(
            f"{given}: {protocol} offers no put-if-absent, on which every commit rests. Write to a local folder, or to "
            f"one of {', '.join(CONDITIONAL[:-1])}."
        )
    if not rest.strip("/"):
        raise OutputError(f"{given}: no bucket is named. Write {protocol}://BUCKET/FOLDER.")
    try:
        file_system(given)
    except InputError as error:
        raise OutputError(str(error)) from error
    return ObjectStore(given.rstrip("/"))
