"""Write deploy/crds, one file for each kind: `python -m tools.crds deploy/crds`."""

import sys
from pathlib import Path
from typing import Any

import yaml

from aimschema.crds import crd
from aimschema.kinds import KINDS


class _NoAliases(yaml.SafeDumper):
    """Writes every value in full, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (signature of the base)
        return True


def render(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=150, allow_unicode=True)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        document = crd(kind)
        (directory / f"{document['metadata']['name']}.yaml").write_text(render(document))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
