"""The pictures of the benchmarks: docs and profiles contain them as they are."""

import re
from itertools import pairwise

from bench.support.chart import LINE, line_chart
from bench.support.flame import WIDTH, flame_graph

WORK = "main (/home/me/aim/.venv/lib/python3.11/site-packages/a/b/c.py:3);plan (/x/y/z/plan.py:9)"
WAITING = "main (/a/b.py:1);_worker (/usr/lib/python3.11/concurrent/futures/thread.py:81)"


def widths(svg: str) -> dict[str, float]:
    """Of the boxes of a flame graph, by the name of the function."""
    found = {}
    for name, width in re.findall(r'<title>(\w+) .*?<rect .*?width="([\d.]+)"', svg):
        found[name] = float(width)
    return found


def test_a_flame_graph_is_as_wide_as_the_samples() -> None:
    other = WORK.replace("plan", "fold")
    svg = flame_graph("aim-router", [f"{WORK} 30", f"{other} 10", f"{WORK} 20"])
    assert widths(svg) == {"main": WIDTH, "plan": WIDTH * 5 / 6, "fold": WIDTH / 6}


def test_a_flame_graph_leaves_out_threads_that_wait() -> None:
    assert widths(flame_graph("aim-router", [f"{WORK} 1", f"{WAITING} 99"]))["plan"] == WIDTH


def test_a_flame_graph_names_no_folder_of_the_machine() -> None:
    svg = flame_graph("aim-router", [f"{WORK} 1"])
    assert "main (a/b/c.py)" in svg
    assert "home" not in svg


def test_labels_of_a_chart_are_apart_where_curves_meet() -> None:
    curves = {name: [(10.0, 1.0), (100.0, 2.0)] for name in ("one", "two", "three")}
    svg = line_chart("CPU", "ms", "services", curves)
    lines = [float(re.findall(rf'y="([\d.]+)"[^>]*>{name}<', svg)[0]) for name in curves]
    assert [after - before for before, after in pairwise(lines)] == [LINE, LINE]
