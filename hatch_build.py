"""Build hook: a wheel carries the model and tokenizer files, checked by sha256, with their licence notices."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Puts `pipelines/resources/` into place before a wheel is made; an editable install leaves that to `make`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is absent, and name the ignored files as artifacts."""
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        try:
            from infra.fetch import main
        finally:
            sys.path.remove(self.root)
        main()
        build_data["artifacts"] += [
            f"/{path.relative_to(self.root)}"
            for path in sorted((Path(self.root) / "pipelines" / "resources").rglob("*"))
            if path.is_file()
        ]
