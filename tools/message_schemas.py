"""Write the messages as JSON Schema, and compare them with every released version.

    python -m tools.message_schemas contracts                  write and compare
    python -m tools.message_schemas --check contracts          only compare
    python -m tools.message_schemas --release 0.4 contracts    keep today's as those of a version

There is one file for each message, named after its type. `contracts/released/<version>/` has the
files of former versions, unchanged.
"""

import json
import shutil
import sys
from pathlib import Path

from aimschema.schema_compat import SUFFIX, Schema, compare, schemas


def read(folder: Path) -> dict[str, Schema]:
    """The schemas of a folder, by message type."""
    return {
        path.name.removesuffix(SUFFIX): json.loads(path.read_text())
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    }


def write(folder: Path) -> None:
    """Replace the schemas of a folder with those of the code."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink()
    for name, schema in schemas().items():
        (folder / f"{name}{SUFFIX}").write_text(
            json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        )


def release(folder: Path, version: str) -> None:
    """Copy the schemas of a folder to `released/<version>`. Raises FileExistsError if that
    version exists."""
    released = folder / "released" / version
    released.mkdir(parents=True)
    for path in folder.glob(f"*{SUFFIX}"):
        shutil.copy(path, released)


def check(folder: Path) -> list[str]:
    """The incompatibilities with each released version, one line each."""
    current = read(folder)
    versions = sorted(path for path in (folder / "released").iterdir() if path.is_dir())
    return [
        f"incompatible with {path.name}: {breach}"
        for path in versions
        for breach in compare(read(path), current)
    ]


def main(arguments: list[str]) -> int:
    """The exit code: 0 compatible, 1 incompatible, 2 wrong usage."""
    match arguments:
        case ["--check", directory]:
            folder = Path(directory)
        case ["--release", version, directory]:
            folder = Path(directory)
            release(folder, version)
        case [directory]:
            folder = Path(directory)
            write(folder)
        case _:
            sys.stderr.write(
                "usage: python -m tools.message_schemas [--check | --release VERSION] DIRECTORY\n"
            )
            return 2
    breaches = check(folder)
    sys.stdout.write(
        "".join(f"{line}\n" for line in breaches) or "compatible with every released version\n"
    )
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
