"""Rows of `aimctl get mc` and `aimctl top`, and the plan of an eviction."""

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from aimcontroller.testing import NAMESPACE, NOW, ago, claim, cr, obj, projection, status_condition
from aimctl.analysis.cache_row import CacheRow
from aimctl.analysis.cache_storage import cache_rows, plan_eviction
from aimctl.cache_table import cache_table
from aimctl.commands.cache import data, render
from aimctl.commands.top import Sample
from aimctl.commands.top import render as render_top
from aimctl.output.console import PlainConsole
from aimschema import labels
from aimschema.quantities import GI
from aimschema.resources import CACHE

Body = dict[str, Any]
MADE = {labels.MANAGED_BY: labels.MANAGED_BY_AIM}


def cache(name: str, size: str, used_s: float, **metadata: Any) -> list[Body]:
    """A warm cache that the control plane created, and its claim."""
    status = {
        "status": "Available",
        "lastUsed": ago(used_s),
        "conditions": [status_condition("Ready", True, "Warm", f"{name} is warm")],
    }
    spec = {"sourceUri": f"hf://org/{name}"}
    body = cr(CACHE.kind, name, spec, **{"labels": MADE, "status": status, **metadata})
    pvc = claim(f"{name}-cache", (CACHE.kind, name), "Bound")
    pvc["spec"]["resources"] = {"requests": {"storage": size}}
    pvc["status"]["capacity"] = {"storage": size}
    return [body, pvc]


RUNTIME = obj(
    "InferenceService",
    "chat",
    owner=("AIMService", "chat"),
    spec={
        "predictor": {
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used-cache"}}]
        }
    },
)
STATE = projection(
    *cache("used", "40Gi", 60),
    RUNTIME,
    *cache("old", "10Gi", 7200),
    *cache("new", "20Gi", 3600),
    *cache("mine", "5Gi", 90, labels={}),
    *cache("evicting", "1Gi", 9000, annotations={labels.ANNOTATION_EVICTING: ago(5)}),
    *cache("pinned", "2Gi", 9000, annotations={labels.ANNOTATION_EVICT: "never"}),
    cr(CACHE.kind, "waiting", {"sourceUri": "hf://org/w"}, status={"status": "Pending"}),
)


def test_a_row_has_size_last_use_user_and_evictability() -> None:
    rows = cache_rows(STATE, NAMESPACE)
    assert [(row.cache, row.size, row.used_by, row.evictable) for row in rows] == [
        ("used", "40Gi", "InferenceService chat", "no: used by InferenceService chat"),
        ("new", "20Gi", "", "yes"),
        ("old", "10Gi", "", "yes"),
        ("mine", "5Gi", "", "no: created by a user"),
        ("pinned", "2Gi", "", "no: annotation aim.silogen.ai/evict is never"),
        ("evicting", "1Gi", "", "evicting"),
        ("waiting", "", "", "no: created by a user"),
    ]
    assert rows[0].last_used == ago(60)
    assert (rows[0].state, rows[0].why) == ("Available", "used is warm")


def test_rows_are_of_one_namespace_or_of_all() -> None:
    assert cache_rows(STATE, "another") == []
    assert cache_rows(STATE, None) == cache_rows(STATE, NAMESPACE)


@pytest.mark.parametrize(
    ("needed_gi", "victims"),
    [
        (0, []),
        (1, ["evicting"]),
        (5, ["old"]),
        (11, ["evicting", "old"]),
        (12, ["new"]),
        (31, ["evicting", "old", "new"]),
        (32, []),
    ],
)
def test_the_plan_frees_as_much_as_needed(needed_gi: int, victims: list[str]) -> None:
    """The marked one and the least recently used first, and no more than necessary."""
    found = plan_eviction(STATE, NAMESPACE, needed_gi * GI, NOW)
    assert [each.key.name for each in found.victims] == victims
    assert found.evictable_bytes == 31 * GI
    assert found.is_enough is (needed_gi <= 31)


def shown(needed_gi: int) -> str:
    console = PlainConsole(file=StringIO(), width=200)
    render(console, plan_eviction(STATE, NAMESPACE, needed_gi * GI, NOW))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def test_the_plan_is_printed() -> None:
    assert shown(5).splitlines()[1].split() == ["old", "10Gi", ago(7200)]
    assert "10Gi would be freed" in shown(5)
    assert "nothing would be evicted" in shown(0)
    assert "32Gi cannot be freed: unused caches hold 31Gi" in shown(32)


def test_the_plan_is_data() -> None:
    assert data(plan_eviction(STATE, NAMESPACE, 5 * GI, NOW)) == {
        "neededBytes": 5 * GI,
        "evictableBytes": 31 * GI,
        "victims": [{"cache": "old", "bytes": 10 * GI, "lastUsed": ago(7200)}],
    }


def text(what: object) -> str:
    file = StringIO()
    PlainConsole(file=file, width=200).print(what)
    return file.getvalue()


def test_foreign_text_in_a_row_is_not_markup() -> None:
    row = replace(cache_rows(STATE, NAMESPACE)[0], why="[red]\x1b[2Jwords")
    assert "[red]" in text(cache_table([row]))
    assert "\x1b" not in text(cache_table([row]))


def test_top_shows_the_largest_caches() -> None:
    rows = [CacheRow("team", f"c{n}", "1Gi", "", "", "yes", "Available", "") for n in range(30)]
    sample = Sample(0.0, 0, 0, 0, (), (), tuple(rows))
    printed = text(render_top(sample))
    assert "LAST USED" in printed
    assert "c19" in printed
    assert "c20" not in printed
