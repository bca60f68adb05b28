"""The order of discoveries: each namespace gets its turns, whatever Jobs and templates others
have."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_discovery.plan import plan
from aim_discovery.projection import map_change_to_keys, map_to_keys
from aim_discovery.turns import MOST_AT_ONCE, MOST_OF_A_NAMESPACE, at_work_by_namespace, next_turns
from aimcontroller import testing
from aimcontroller.action import ApplyObject
from aimcontroller.projection import Observation, Projection, drop_object, fold
from aimcontroller.testing import NAMESPACE, NOW, Body, ago, projection, rejected
from aimschema import labels
from aimschema.messages import ReportedCondition, StatusReported
from aimschema.resources import JOB, MODEL, POD, TEMPLATE, Key, key_of

SPEC = {
    "model": "m:1",
    "metric": "latency",
    "precision": "auto",
    "gpusPerReplica": 8,
    "gpuModel": "MI300X",
    "tensorParallelism": 8,
}
CATALOGUE = testing.cr(MODEL.kind, "m", {"name": "m:1", "image": "example.org/m:1"})
OURS = {labels.COMPONENT: "discovery", labels.MANAGED_BY: "aim"}
Change = Callable[[Body], Body]


def template(name: str, namespace: str = NAMESPACE, **fields: object) -> Body:
    return testing.cr(TEMPLATE.kind, name, SPEC, namespace=namespace, **fields)


def job(of: str, namespace: str = NAMESPACE, **fields: object) -> Body:
    defaults: Body = {"age_s": 300, "labels": OURS, "status": {"startTime": ago(300)}} | fields
    return testing.obj(
        JOB.kind,
        f"discover-{of}-0123abcd",
        namespace=namespace,
        owner=(TEMPLATE.kind, of),
        uid=f"job-{namespace}-{of}",
        **defaults,
    )


def pod(of: str, namespace: str = NAMESPACE) -> Body:
    body = testing.pod(f"{of}-pod", (JOB.kind, of), "discovery", namespace=namespace)
    body["metadata"]["ownerReferences"][0]["uid"] = f"job-{namespace}-{of}"
    return body


def running(count: int, namespace: str) -> list[Body]:
    """Running discoveries."""
    return [
        part
        for n in range(count)
        for part in (template(f"r{n}", namespace), job(f"r{n}", namespace), pod(f"r{n}", namespace))
    ]


def starts(state: Projection, key: Key) -> bool:
    return any(
        isinstance(action, ApplyObject) and action.key.kind == JOB.kind
        for action in plan(state, key, NOW, namespace="aim-system").actions
    )


def with_metadata(**fields: object) -> Change:
    return lambda body: {**body, "metadata": body["metadata"] | fields}


def with_labels(**changed: str) -> Change:
    return with_metadata(
        labels={
            f"app.kubernetes.io/{name.replace('_', '-')}": value for name, value in changed.items()
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_labels(component="discovery"), id="not-managed-by-us"),
        pytest.param(
            with_labels(component="discovery", managed_by="helm"), id="managed-by-another"
        ),
        pytest.param(with_labels(managed_by="aim"), id="another-component"),
        pytest.param(with_metadata(ownerReferences=None), id="no-owner"),
        pytest.param(
            with_metadata(
                ownerReferences=[{"kind": TEMPLATE.kind, "name": "r0", "uid": "made-up"}]
            ),
            id="another-uid",
        ),
        pytest.param(
            with_metadata(
                ownerReferences=[
                    {"kind": "Deployment", "name": "r0", "uid": "aimservicetemplate-r0"}
                ]
            ),
            id="another-kind",
        ),
        pytest.param(
            with_metadata(ownerReferences=[{"kind": TEMPLATE.kind, "name": "unknown", "uid": "u"}]),
            id="unknown-template",
        ),
        pytest.param(with_metadata(name="sleep"), id="another-name"),
        pytest.param(with_metadata(name="discover-r0-sleeps"), id="no-hash-at-the-end"),
        pytest.param(with_metadata(name="discover-other-0123abcd"), id="another-templates-name"),
        pytest.param(with_metadata(namespace="mallory"), id="template-of-another-namespace"),
        pytest.param(with_metadata(deletionTimestamp=ago(5)), id="being-deleted"),
        pytest.param(
            lambda body: body | {"status": {"startTime": ago(700)}}, id="past-its-deadline"
        ),
    ],
)
def test_a_job_that_is_not_ours_takes_no_turn(change: Change) -> None:
    assert at_work_by_namespace(projection(template("r0"), job("r0"), pod("r0")), NOW) == {
        NAMESPACE: 1
    }
    bodies = [template("r0"), change(job("r0")), pod("r0")]
    assert at_work_by_namespace(projection(*bodies), NOW) == {}


def test_sleeping_jobs_of_one_tenant_delay_no_other() -> None:
    def sleeping(number: int) -> Body:
        name = f"sleep-{number}"
        return testing.obj(
            JOB.kind,
            name,
            namespace="mallory",
            labels=OURS,
            age_s=30,
            owner=(TEMPLATE.kind, "mine"),
        )

    state = projection(
        CATALOGUE, template("t"), template("mine", "mallory"), *map(sleeping, range(20))
    )
    assert starts(state, Key(TEMPLATE.kind, NAMESPACE, "t"))


@pytest.mark.parametrize(
    ("own", "others", "begins"),
    [
        pytest.param(9, [], True, id="alone-up-to-the-cap"),
        pytest.param(10, [], False, id="alone-at-the-cap"),
        pytest.param(2, [template("w", "b")], True, id="below-the-share"),
        pytest.param(3, [template("w", "b")], False, id="at-the-share-while-another-waits"),
        pytest.param(3, running(2, "b"), True, id="no-other-waits"),
        pytest.param(3, [template("w", NAMESPACE)], True, id="only-the-own-namespace-waits"),
        pytest.param(3, [template("w", "b", deleting=True)], True, id="the-other-is-being-deleted"),
        pytest.param(
            2,
            [*running(3, "c"), *running(3, "d"), template("w", "b")],
            True,
            id="two-turns-are-free",
        ),
        pytest.param(
            2,
            [*running(3, "c"), *running(4, "d"), template("w", "b")],
            False,
            id="the-last-turn-is-for-who-has-fewer",
        ),
        pytest.param(
            0,
            [*running(3, "c"), *running(3, "d"), *running(3, "e"), template("w", "b")],
            True,
            id="who-has-none-yields-to-none",
        ),
    ],
)
def test_a_namespace_has_its_share(own: int, others: list[Body], *, begins: bool) -> None:
    state = projection(CATALOGUE, template("t"), *running(own, NAMESPACE), *others)
    assert starts(state, Key(TEMPLATE.kind, NAMESPACE, "t")) is begins


def test_a_template_that_cannot_begin_delays_no_other() -> None:
    key = Key(TEMPLATE.kind, "b", "w")
    observations: list[Observation] = [rejected(key, Key(JOB.kind, "b", "j"), "quota used up")]
    bodies = [CATALOGUE, template("t"), *running(3, NAMESPACE)]
    assert starts(
        projection(*bodies, template("w", "b"), observations=observations),
        Key(TEMPLATE.kind, NAMESPACE, "t"),
    )
    late = template("w", "b", status={"attempts": 1, "nextAttemptTime": ago(-60)})
    assert starts(projection(*bodies, late), Key(TEMPLATE.kind, NAMESPACE, "t"))


def waits(name: str, namespace: str) -> StatusReported:
    condition = ReportedCondition(type="Discovered", status="False", reason="AwaitingDiscovery")
    return StatusReported(
        kind=TEMPLATE.kind,
        namespace=namespace,
        name=name,
        uid=f"aimservicetemplate-{name}",
        service="discovery",
        observed_generation=1,
        conditions=(condition,),
    )


def test_a_free_turn_wakes_the_namespaces_one_after_the_other() -> None:
    bodies = [template(f"t{n}", "a", age_s=9000) for n in range(30)] + [
        template("x", "b"),
        template("y", "c", age_s=60),
    ]
    last = running(1, "b")
    state = projection(
        CATALOGUE,
        *bodies,
        *last,
        reports=[waits(body["metadata"]["name"], body["metadata"]["namespace"]) for body in bodies],
    )
    assert [key.namespace for key in next_turns(state)][:4] == ["c", "a", "b", "a"]
    ended = key_of(last[1])
    woken = list(map_to_keys(state, ended, namespace="aim-system"))
    assert {key.namespace for key in woken} == {"a", "b", "c"}
    assert len(woken) <= 12


def test_a_template_that_goes_with_its_job_wakes_who_waits() -> None:
    before = projection(CATALOGUE, template("t"), *running(1, "b"), reports=[waits("t", NAMESPACE)])
    key = Key(TEMPLATE.kind, "b", "r0")
    assert list(map_change_to_keys(before, drop_object(before, key), key)) == [
        Key(TEMPLATE.kind, NAMESPACE, "t")
    ]
    assert list(map_change_to_keys(before, before, key)) == []


def test_a_forged_owner_enqueues_no_other_namespace() -> None:
    forged = testing.config_map("image-m", (MODEL.kind, "m"), {})
    state = projection(CATALOGUE, template("t"), forged)
    assert list(map_to_keys(state, key_of(forged), namespace="aim-system")) == []


def without(state: Projection, keys: Iterable[Key]) -> Projection:
    for key in keys:
        state = drop_object(state, key)
    return state


class Turns:
    """Templates of several namespaces, and the Jobs that discovery starts for them."""

    def __init__(self, templates: dict[str, int]) -> None:
        bodies = [
            template(f"t{n}", name) for name, count in templates.items() for n in range(count)
        ]
        self.templates = templates
        self.state = projection(CATALOGUE, *bodies)
        self.served: Counter[str | None] = Counter()
        self.active: list[Key] = []

    @property
    def keys(self) -> list[Key]:
        return [each.key for each in self.state.in_all_namespaces(TEMPLATE.kind)]

    def reconcile(self, keys: Iterable[Key]) -> None:
        for key in keys:
            is_idle_template = key.kind == TEMPLATE.kind and key not in self.active
            if is_idle_template and starts(self.state, key):
                self.start(key)

    def start(self, key: Key) -> None:
        own = Counter(each.namespace for each in self.active)[key.namespace]
        others = {each.namespace for each in self.keys} - {key.namespace}
        waiting = {each for each in others if self.templates[each or ""] > self.served[each]}
        assert own < MOST_OF_A_NAMESPACE or not waiting
        for body in (job(key.name, str(key.namespace)), pod(key.name, str(key.namespace))):
            self.state = fold(self.state, testing.changed(body))
        self.active.append(key)
        self.served[key.namespace] += 1
        assert len(self.active) <= MOST_AT_ONCE

    def end(self, key: Key) -> None:
        """The discovery ends and its template is deleted; enqueued templates are reconciled."""
        self.active.remove(key)
        ended = Key(JOB.kind, key.namespace, f"discover-{key.name}-0123abcd")
        enqueued = map_to_keys(self.state, ended, namespace="aim-system")
        others = [each for each in enqueued if each != key]
        pod_key = Key(POD.kind, key.namespace, f"{key.name}-pod")
        self.state = without(self.state, [ended, pod_key, key])
        self.reconcile([*others, *next_turns(self.state)])


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefghijklm"), st.integers(1, 15), min_size=1),
    st.lists(st.integers(0, MOST_AT_ONCE - 1), min_size=30, max_size=30),
    st.data(),
)
def test_no_namespace_starves_and_the_cap_holds(
    templates: dict[str, int], ends: list[int], data: st.DataObject
) -> None:
    """Templates are reconciled in any order, and discoveries end in any order."""
    turns = Turns(templates)
    turns.reconcile(data.draw(st.permutations(turns.keys)))
    for end in ends:
        if turns.active:
            turns.end(turns.active[end % len(turns.active)])
    served = turns.served
    are_all_served = all(served[namespace] for namespace in templates)
    assert are_all_served or sum(served.values()) < MOST_AT_ONCE + len(templates)
