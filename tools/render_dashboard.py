"""Draw the dashboard without Grafana: run each panel's query on a real Prometheus that scrapes the
laptop cluster.

Run by hand, in two steps, to write docs/reference/dashboard.png:

    .venv/bin/python -m tools.render_dashboard run DATA.json
    python tools/render_dashboard.py draw DATA.json docs/reference/dashboard.png

The first step starts the laptop cluster with the quickstart and stores the results of Prometheus
(`make promtool`). The second draws them at the positions of the panels. It needs matplotlib, which
is no dependency of this repository and may be in another environment.
"""

import asyncio
import datetime
import json
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / ".venv" / "prometheus" / "usr" / "bin" / "prometheus"
PANELS: list[dict[str, Any]] = json.loads(
    (ROOT / "deploy" / "monitoring" / "dashboard.json").read_text()
)["panels"]
STEP_S = 2
AFTER_S = 45


async def run(data: Path) -> None:
    """Run the quickstart from apply to Ready, delete its service, and store the result of each
    panel's query."""
    # draw() must run in an environment without these.
    from aimctl.local.ports import free_ports  # noqa: PLC0415
    from aimctl.local.processes import Children  # noqa: PLC0415
    from aimlab.cli.environment import control_plane_on_laptop, kubectl  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="aim-dashboard-") as name:
        folder = Path(name)
        async with (
            control_plane_on_laptop(folder / "stack") as stack,
            Children(folder / "log") as children,
        ):
            (port,) = free_ports(1)
            urls = stack.health.values()
            await children.start("prometheus", prometheus_command(folder, port, urls))
            began_s = time.time()
            await asyncio.sleep(10)
            await kubectl(stack.lab, "apply", "-f", str(stack.quickstart.manifests))
            service = ("aimsvc/minilm", "-n", "quickstart")
            await kubectl(stack.lab, "wait", *service, "--for=condition=Ready", "--timeout=120s")
            await asyncio.sleep(AFTER_S)
            await kubectl(stack.lab, "delete", *service)
            await asyncio.sleep(15)
            span = {"start": began_s, "end": time.time(), "step": STEP_S}
            results = [
                await asyncio.to_thread(query_range, port, target["expr"], span)
                for panel in PANELS
                for target in panel["targets"]
            ]
        await asyncio.to_thread(data.write_text, json.dumps(results))


def prometheus_command(folder: Path, port: int, urls: Iterable[str]) -> list[str]:
    """Writes its configuration, which scrapes these URLs, into the folder."""
    targets = [url.removeprefix("http://") for url in urls]
    scraped = {"job_name": "aim", "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "2s"}, "scrape_configs": [scraped]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    return [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def query_range(port: int, query: str, span: dict[str, float]) -> Any:
    parameters = urllib.parse.urlencode({"query": query, **span})
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/api/v1/query_range?{parameters}", timeout=30
    ) as response:
        return json.load(response)["data"]["result"]


def draw(data: Path, image: Path) -> None:
    import matplotlib.pyplot as plt  # type: ignore[import-not-found]  # noqa: PLC0415 (not in .venv)

    results = iter(json.loads(data.read_text()))
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in PANELS)
    figure = plt.figure(figsize=(18, rows * 0.45), layout="constrained")
    grid = figure.add_gridspec(rows, 24)
    for panel in PANELS:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axes.set_title(f"{panel['title']}  [{unit}]", loc="left", fontsize=10)
        for target in panel["targets"]:
            for line in next(results):
                times = [
                    datetime.datetime.fromtimestamp(at_s, datetime.UTC)
                    for at_s, _ in line["values"]
                ]
                values = [float(value) for _, value in line["values"]]
                axes.plot(times, values, label=legend(target["legendFormat"], line["metric"]))
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7, axis="both")
        axes.grid(visible=True, alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=6, loc="upper left")
        else:
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
    figure.savefig(image, dpi=70)


def legend(pattern: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


if __name__ == "__main__":
    if sys.argv[1] == "run":
        asyncio.run(run(Path(sys.argv[2])))
    else:
        draw(Path(sys.argv[2]), Path(sys.argv[3]))
