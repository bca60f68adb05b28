"""Selectors, patches, quantities and the store: pure parts with tables of their own."""

from typing import Any

import pytest

from aimlab.apiserver import list_map_keys, patch, quantity, selectors, store
from aimlab.apiserver.errors import ApiError
from aimlab.apiserver.jsonpath import find
from aimlab.apiserver.table import short

Obj = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        pytest.param("", {}, True, id="everything"),
        pytest.param("a=b", {"a": "b"}, True, id="equals"),
        pytest.param("a==b,c!=d", {"a": "b"}, True, id="not-equals-takes-absent"),
        pytest.param("a in (x, y)", {"a": "y"}, True, id="in"),
        pytest.param("a notin (x,y)", {}, True, id="notin-takes-absent"),
        pytest.param("a", {"a": ""}, True, id="exists"),
        pytest.param("!a", {"a": ""}, False, id="does-not-exist"),
        pytest.param("a=", {"a": ""}, True, id="empty-value"),
        pytest.param(
            "app.kubernetes.io/name=x,a>1",
            {"app.kubernetes.io/name": "x", "a": "2"},
            True,
            id="prefix-and-greater",
        ),
    ],
)
def test_label_selectors(text: str, labels: Obj, selected: bool) -> None:
    test = selectors.labels(text)
    assert (test is None or test({"metadata": {"labels": labels}})) is selected


@pytest.mark.parametrize("text", ["==", "a in x", "a=b c", "a=(", "&"])
def test_malformed_label_selectors_are_rejected(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        selectors.labels(text)
    assert caught.value.code == 400


def test_field_selectors_take_and_refuse() -> None:
    test = selectors.fields(
        "metadata.name=a,status.phase!=Running", frozenset({"metadata.name", "status.phase"})
    )
    assert test
    assert test({"metadata": {"name": "a"}})
    assert not test({"metadata": {"name": "a"}, "status": {"phase": "Running"}})
    with pytest.raises(ApiError, match=r"spec\.x"):
        selectors.fields("spec.x=1", frozenset())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10Gi", 10 * 2**30),
        ("1.5k", 1500),
        ("1e3", 1000),
        ("0.5", 0.5),
        ("-2M", -2_000_000),
        (".5Ki", 512),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize("text", ["", "ten", "1 Gi", "1GB", "Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="add"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}, id="remove"),
        pytest.param({"a": [1]}, {"a": [2]}, {"a": [2]}, id="lists-are-replaced"),
        pytest.param(
            {"a": 1}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}, id="nulls-never-stored"
        ),
    ],
)
def test_merge_patch(target: Obj, change: Obj, result: Obj) -> None:
    assert patch.merge(target, change) == result


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        pytest.param(
            [{"op": "add", "path": "/l/1", "value": 9}],
            {"l": [1, 9, 2], "m": {"a/b": 1}},
            id="insert",
        ),
        pytest.param(
            [{"op": "add", "path": "/l/-", "value": 9}],
            {"l": [1, 2, 9], "m": {"a/b": 1}},
            id="append",
        ),
        pytest.param([{"op": "remove", "path": "/m/a~1b"}], {"l": [1, 2], "m": {}}, id="escaped"),
        pytest.param(
            [{"op": "move", "from": "/l/0", "path": "/x"}],
            {"l": [2], "m": {"a/b": 1}, "x": 1},
            id="move",
        ),
        pytest.param(
            [{"op": "copy", "from": "/l", "path": "/m/l"}],
            {"l": [1, 2], "m": {"a/b": 1, "l": [1, 2]}},
            id="copy",
        ),
        pytest.param(
            [
                {"op": "test", "path": "/l/0", "value": 1},
                {"op": "replace", "path": "/l", "value": 3},
            ],
            {"l": 3, "m": {"a/b": 1}},
            id="test",
        ),
    ],
)
def test_json_patch(operations: list[Obj], result: Obj) -> None:
    target = {"l": [1, 2], "m": {"a/b": 1}}
    assert patch.json_patch(target, operations) == result
    assert target == {"l": [1, 2], "m": {"a/b": 1}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/x"},
        {"op": "replace", "path": "/x", "value": 1},
        {"op": "add", "path": "/l/9", "value": 1},
        {"op": "nap", "path": ""},
    ],
)
def test_json_patch_that_cannot_be_done(operation: Obj) -> None:
    with pytest.raises(ApiError) as caught:
        patch.json_patch({"l": []}, [operation])
    assert caught.value.code == 422


@pytest.mark.parametrize(
    ("change", "containers"),
    [
        pytest.param(
            [{"name": "b", "image": "2"}],
            [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}],
            id="new-item",
        ),
        pytest.param(
            [{"name": "a", "tty": True}], [{"name": "a", "image": "1", "tty": True}], id="same-item"
        ),
        pytest.param([{"name": "a", "$patch": "delete"}], [], id="delete"),
        pytest.param([{"$patch": "replace"}, {"name": "c"}], [{"name": "c"}], id="replace"),
    ],
)
def test_strategic_merge_goes_by_key(change: list[Obj], containers: list[Obj]) -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "1"}]}}
    assert (
        patch.strategic(pod, {"spec": {"containers": change}}, list_map_keys.SHAPES["Pod"])["spec"][
            "containers"
        ]
        == containers
    )


def test_strategic_merge_removes_from_sets_and_orders_lists() -> None:
    pod = {"metadata": {"finalizers": ["a", "b"]}, "spec": {"volumes": [{"name": "x"}]}}
    change = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]},
        "spec": {
            "volumes": [{"name": "y"}],
            "$setElementOrder/volumes": [{"name": "y"}, {"name": "x"}],
        },
    }
    merged = patch.strategic(pod, change, list_map_keys.SHAPES["Pod"])
    assert merged == {
        "metadata": {"finalizers": ["b"]},
        "spec": {"volumes": [{"name": "y"}, {"name": "x"}]},
    }


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.model", ["m"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[0].type", ["Ready"]),
        (".status.conditions[*].type", ["Ready", "Warm"]),
        (r".metadata.labels.example\.com/x", ["y"]),
        (".status.nope", []),
        ("$[", []),
    ],
)
def test_paths_of_printer_columns(path: str, found: list[Any]) -> None:
    conditions = [{"type": "Ready", "status": "True"}, {"type": "Warm", "status": "False"}]
    assert (
        find(
            {
                "spec": {"model": "m"},
                "status": {"conditions": conditions},
                "metadata": {"labels": {"example.com/x": "y"}},
            },
            path,
        )
        == found
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5s"),
        (119, "119s"),
        (150, "2m30s"),
        (660, "11m"),
        (10800, "3h"),
        (100000, "27h"),
        (10**6, "11d"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert short(seconds) == text


KEY = ("g", "things")


def thing(name: str, value: int = 0) -> Obj:
    return {"metadata": {"name": name, "namespace": "n"}, "value": value}


def test_the_store_remembers_what_a_collection_was() -> None:
    objects = store.Store()
    collection = objects.open(KEY)
    first = objects.put(KEY, thing("a", 1)).version
    objects.put(KEY, thing("a", 2))
    objects.put(KEY, thing("b"))
    objects.remove(KEY, "n", "a")
    then = [
        (entry.obj["metadata"]["name"], entry.obj["value"])
        for entry in collection.entries_at(None, first)
    ]
    assert then == [("a", 1)]
    assert [change.type for change in collection.since(first)] == ["MODIFIED", "ADDED", "DELETED"]
    assert [entry.obj["metadata"]["name"] for entry in collection.entries("n")] == ["b"]


def test_history_is_bounded_and_knows_where_it_starts() -> None:
    objects = store.Store(history_size=3)
    collection = objects.open(KEY)
    versions = [objects.put(KEY, thing("a", value)).version for value in range(5)]
    assert collection.floor == versions[1]
    assert [change.version for change in collection.since(collection.floor)] == versions[2:]
