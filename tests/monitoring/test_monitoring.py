"""Alerts, runbooks, dashboard and the list of metrics hold together, and Prometheus' own tool
takes them."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from aimlab import forkserver
from aimlab.cli.environment import Stack, control_plane_on_laptop
from aimlab.testing import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".venv" / "prometheus" / "usr" / "bin"
"""Where `make test` puts what is in Debian's package `prometheus`."""
MONITORING, RUNBOOKS = ROOT / "deploy" / "monitoring", ROOT / "docs" / "runbooks"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ROW = re.compile(
    r"^\| `(aim_[a-z_]+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|",
    re.MULTILINE,
)
UNBOUNDED = {"name", "namespace", "uid", "object", "subject", "key"}
EVERYBODY = "all"
IMPORTED = ("aiohttp", "nats", "prometheus_client", "pydantic_settings", "structlog")
"""What every service imports, and which registers none of our metrics."""


@pytest.fixture(scope="session")
def promtool() -> str:
    """Its path. Without it the test is skipped, and in CI it fails."""
    found = shutil.which("promtool", path=f"{FETCHED}{os.pathsep}{os.environ['PATH']}")
    if found is not None:
        return found
    missing = "promtool is missing: run `make promtool`, which needs apt-get, or put it on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def documented() -> dict[str, tuple[str, set[str], set[str]]]:
    """By metric: type, labels, and who exports it."""
    rows = ROW.findall((ROOT / "docs" / "reference" / "metrics.md").read_text())
    return {
        name: (type_, set(re.findall(r"`(\w+)`", labels)), set(re.findall(r"\w+", who)))
        for name, type_, labels, _, who in rows
    }


def used(expression: str) -> set[str]:
    """Our metrics in a query; all of them begin with aim_."""
    return {
        re.sub(r"(?<=_seconds)_(bucket|count|sum)$", "", name)
        for name in re.findall(r"\baim_[a-z_]+", expression)
    }


def tool(promtool: str, *args: str, text: str | None = None) -> None:
    done = subprocess.run(
        [promtool, *args], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
async def test_an_alert_has_a_page_that_quotes_it(rule: dict[str, Any]) -> None:
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{rule['alert']}.md"
    text = page.read_text()
    assert f"`{rule['expr']}` for {rule['for']} ({rule['labels']['severity']})" in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Meaning",
        "Diagnosis",
        "Mitigation",
    ]


async def test_there_is_no_page_without_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize(
    "expression",
    [rule["expr"] for rule in RULES] + [t["expr"] for panel in PANELS for t in panel["targets"]],
)
async def test_a_query_asks_for_what_there_is(expression: str) -> None:
    assert used(expression) <= set(documented())


async def test_every_metric_is_on_the_dashboard() -> None:
    assert {
        name for panel in PANELS for target in panel["targets"] for name in used(target["expr"])
    } == set(documented())


async def test_panels_do_not_lie_over_each_other() -> None:
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in PANELS)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


async def test_prometheus_takes_alerts_and_queries(promtool: str, tmp_path: Path) -> None:
    tool(promtool, "check", "rules", str(MONITORING / "alerts.yaml"))
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "panels.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})
    )
    tool(promtool, "check", "rules", str(tmp_path / "panels.yaml"))


async def test_each_alert_fires_when_it_should_and_only_then(promtool: str) -> None:
    tests = yaml.safe_load((Path(__file__).parent / "alerts_test.yaml").read_text())["tests"]
    tried = [
        (case["alert_rule_test"][0]["alertname"], bool(case["alert_rule_test"][0]["exp_alerts"]))
        for case in tests
    ]
    assert sorted(tried) == sorted(
        (rule["alert"], fires) for rule in RULES for fires in (True, False)
    )
    tool(promtool, "test", "rules", str(Path(__file__).parent / "alerts_test.yaml"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Each service in a process that has imported nothing of the others: metrics are registered
    at import, and the processes of other tests would serve those of all services."""
    with (
        forkserver.fork_server(tmp_path_factory.mktemp("fork"), IMPORTED) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(forkserver.SOCKET, str(place))
        async with control_plane_on_laptop(tmp_path_factory.mktemp("stack")) as running:
            yield running


async def scraped(stack: Stack) -> dict[str, str]:
    """What each service serves, as text."""
    async with aiohttp.ClientSession(trust_env=False) as session:

        async def scrape(url: str) -> str:
            async with session.get(f"{url}/metrics") as answer:
                assert answer.status == 200
                return await answer.text()

        return dict(
            zip(
                stack.health, await asyncio.gather(*map(scrape, stack.health.values())), strict=True
            )
        )


def families(text: str) -> dict[str, str]:
    """Our metrics and their types, without what the client library adds to each counter
    (`_created`)."""
    found = dict(re.findall(r"^# TYPE (aim_[a-z_]+) (\w+)$", text, re.MULTILINE))
    return {name: type_ for name, type_ in found.items() if not name.endswith("_created")}


async def test_exported_and_documented_metrics_are_the_same(stack: Stack) -> None:
    found: dict[str, tuple[str, set[str]]] = {}
    for service, text in (await scraped(stack)).items():
        for name, type_ in families(text).items():
            found.setdefault(name, (type_, set()))[1].add(service)
    on_page = {
        name: (type_, set(stack.health) if who == {EVERYBODY} else who)
        for name, (type_, _, who) in documented().items()
    }
    assert found == on_page


async def test_labels_are_the_documented_ones_and_bounded(stack: Stack) -> None:
    async def all_there() -> bool:
        return "aim_events_total{" in (await scraped(stack))["router"]

    await eventually(all_there, "the router counts events")
    for text in (await scraped(stack)).values():
        for name, labels in re.findall(r"^(aim_[a-z_]+)\{([^}]*)\}", text, re.MULTILINE):
            if name.endswith("_created"):
                continue
            (metric,) = used(name)
            had = set(re.findall(r'(\w+)="', labels)) - {"le"}
            assert had == documented()[metric][1], name
            assert not had & UNBOUNDED


async def test_names_and_units_are_as_prometheus_asks(stack: Stack, promtool: str) -> None:
    for text in (await scraped(stack)).values():
        ours = "\n".join(
            line
            for line in text.splitlines()
            if re.match(r"(# \w+ )?aim_", line) and "_created" not in line
        )
        tool(promtool, "check", "metrics", text=ours + "\n")
