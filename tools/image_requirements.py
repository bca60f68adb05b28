"""Write deploy/images/requirements, the third-party packages of each image, from the pins in
requirements/demo.txt: `python -m tools.image_requirements`.

A target's list has the requirements of its distribution and, in turn, theirs: by the metadata of
the installed packages, for every platform that images are built for. The extra `otel` of our own
libraries is included, so that a variable can switch tracing on.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LISTS = ROOT / "deploy" / "images" / "requirements"
PLATFORMS = tuple(
    {"sys_platform": "linux", "platform_machine": machine} for machine in ("x86_64", "aarch64")
)
EXTRA = "otel"


def targets() -> list[str]:
    """An image for each service and each job."""
    return sorted(
        path.parent.name
        for folder in ("services", "jobs")
        for path in (ROOT / folder).glob("*/pyproject.toml")
    )


def projects() -> dict[str, dict[str, list[str]]]:
    """The requirements of each distribution of this repository, by name and extra ("" for none)."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in (
        path
        for folder in ("libs", "services", "jobs")
        for path in (ROOT / folder).glob("*/pyproject.toml")
    ):
        project = tomllib.loads(path.read_text())["project"]
        found[canonicalize_name(project["name"])] = {
            "": project["dependencies"],
            **project.get("optional-dependencies", {}),
        }
    return found


def pins() -> dict[str, str]:
    """The pinned lines of requirements/demo.txt by package name, with hashes and without the
    comments of pip-compile."""
    text = re.sub(
        r"^ *#.*\n", "", (ROOT / "requirements" / "demo.txt").read_text(), flags=re.MULTILINE
    )
    blocks = re.findall(r"^(?:[A-Za-z0-9].*\n)(?: .*\n)*", text, flags=re.MULTILINE)
    return {canonicalize_name(block.partition("==")[0]): block for block in blocks}


def closure(target: str) -> tuple[list[str], list[str]]:
    """The third-party packages of a target, and those of our own libraries that have the extra."""
    own = projects()
    visited = set[tuple[str, str]]()
    todo = [(f"aim-{target}", "")]
    while todo:
        if (name_and_extra := todo.pop()) in visited:
            continue
        visited.add(name_and_extra)
        name, extra = name_and_extra
        if name in own:
            needed = [Requirement(text) for text in own[name].get(extra, ())]
            todo += [(name, EXTRA)] if EXTRA in own[name] else []
        else:
            needed = [Requirement(text) for text in requires(name) or ()]
        todo += [
            found
            for requirement in needed
            if applies(requirement, extra)
            for found in names(requirement)
        ]
    return sorted({name for name, _ in visited} - own.keys()), sorted(
        name for name, extra in visited if name in own and extra == EXTRA
    )


def applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate({**platform, "extra": extra}) for platform in PLATFORMS
    )


def names(requirement: Requirement) -> Iterator[tuple[str, str]]:
    yield from ((canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras))


def requirements_of(target: str) -> str:
    """The list of a target. Raises KeyError for a package that is not pinned."""
    third_party, with_extra = closure(target)
    pinned = pins()
    extras = (
        f"# extra: {' '.join(f'{name}[{EXTRA}]' for name in with_extra)}\n" if with_extra else ""
    )
    return (
        f"# What the image {target} holds besides the distributions of this repository. Written by"
        f" `make lock`.\n{extras}" + "".join(pinned[name] for name in third_party)
    )


def main() -> None:
    LISTS.mkdir(exist_ok=True)
    for old in LISTS.glob("*.txt"):
        old.unlink()
    for target in targets():
        (LISTS / f"{target}.txt").write_text(requirements_of(target))
        sys.stdout.write(f"{target}: {len(closure(target)[0])} packages\n")


if __name__ == "__main__":
    main()
