"""Draws the dashboard without Grafana: each panel's own query, asked of a real Prometheus that
scrapes the laptop cluster.

Run by hand, in two steps, to write docs/reference/dashboard.png:

    .venv/bin/python deploy/monitoring/picture.py run DATA.json
    python deploy/monitoring/picture.py draw DATA.json docs/reference/dashboard.png

The first brings up the laptop cluster and the quickstart and keeps what Prometheus (`make
promtool`) answers. The second draws it at the panels' places; it needs matplotlib, which is no
dependency of this repository and may be in an environment of its own.
"""

import asyncio
import datetime
import json
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMETHEUS = HERE.parents[1] / ".venv" / "prometheus" / "usr" / "bin" / "prometheus"
PANELS: list[dict[str, Any]] = json.loads((HERE / "dashboard.json").read_text())["panels"]
STEP_S = 2
AFTER_S = 45


async def run(data: Path) -> None:
    """The quickstart from apply to Ready, its service deleted, a mistake; then what Prometheus
    answers to each panel."""
    # Drawing needs none of this.
    from aimctl.local.ports import free_ports  # noqa: PLC0415
    from aimctl.local.processes import Children  # noqa: PLC0415
    from aimlab.cli.environment import control_plane_on_laptop, kubectl  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="aim-picture-") as name:
        folder = Path(name)
        async with (
            control_plane_on_laptop(folder / "stack") as stack,
            Children(folder / "log") as children,
        ):
            targets = [url.removeprefix("http://") for url in stack.health.values()]
            scraped = {"job_name": "aim", "static_configs": [{"targets": targets}]}
            config = {"global": {"scrape_interval": "2s"}, "scrape_configs": [scraped]}
            (folder / "prometheus.yml").write_text(json.dumps(config))
            (port,) = free_ports(1)
            files = [
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
            ]
            await children.start(
                "prometheus", [str(PROMETHEUS), *files, f"--web.listen-address=127.0.0.1:{port}"]
            )
            began_s = time.time()
            await asyncio.sleep(10)
            await kubectl(stack.lab, "apply", "-f", str(stack.quickstart.manifests))
            await kubectl(
                stack.lab,
                "wait",
                "aimsvc/minilm",
                "-n",
                "quickstart",
                "--for=condition=Ready",
                "--timeout=120s",
            )
            await asyncio.sleep(AFTER_S)
            await kubectl(stack.lab, "delete", "aimsvc/minilm", "-n", "quickstart")
            await asyncio.sleep(15)
            span = {"start": began_s, "end": time.time(), "step": STEP_S}
            answers = [
                await asyncio.to_thread(ask, port, target["expr"], span)
                for panel in PANELS
                for target in panel["targets"]
            ]
        await asyncio.to_thread(data.write_text, json.dumps(answers))


def ask(port: int, query: str, span: dict[str, float]) -> Any:
    question = urllib.parse.urlencode({"query": query, **span})
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/api/v1/query_range?{question}", timeout=30
    ) as answer:
        return json.load(answer)["data"]["result"]


def draw(data: Path, picture: Path) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415 (not in .venv)

    answers = json.loads(data.read_text())
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in PANELS)
    figure = plt.figure(figsize=(18, rows * 0.45), layout="constrained")
    grid = figure.add_gridspec(rows, 24)
    for panel, series in zip(PANELS, answers, strict=True):
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        for each in series:
            times = [
                datetime.datetime.fromtimestamp(float(when), datetime.UTC)
                for when, _ in each["values"]
            ]
            axes.plot(
                times,
                [float(value) for _, value in each["values"]],
                label=legend(panel["targets"][0]["legendFormat"], each["metric"]),
            )
        axes.set_title(
            f"{panel['title']}  [{panel['fieldConfig']['defaults']['unit']}]",
            loc="left",
            fontsize=10,
        )
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7, axis="both")
        axes.grid(visible=True, alpha=0.3)
        if series:
            axes.legend(fontsize=6, loc="upper left")
        else:
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
    figure.savefig(picture, dpi=70)


def legend(pattern: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


if __name__ == "__main__":
    if sys.argv[1] == "run":
        asyncio.run(run(Path(sys.argv[2])))
    else:
        draw(Path(sys.argv[2]), Path(sys.argv[3]))
