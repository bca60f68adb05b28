"""A real API server holds the accounts of the services to the admission policies of the chart, by
the same table as the double (tests/contract/test_policies.py).

Without the rest of `make test-real`:

    python -m aimlab.real --alone pytest tests/real/test_chart_policies.py
"""

import contextlib
import itertools
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio

from aim_testing.policies.cases import ADMITTED, CHART, REJECTED, Body, Case
from aim_testing.policies.double import POLICY, policies, violated
from aimkube import AlreadyExists, Cluster, Forbidden, Invalid, Rejected
from aimlab.accounts import account_kubeconfigs, api_of
from aimlab.kinds import RBAC_KINDS
from aimlab.lab import define
from aimlab.real.cluster import real_cluster
from aimlab.real.parts import build_parts, cache_folder
from aimlab.testing import eventually
from aimlab.testing.charts import NAMESPACE, render
from aimschema.resources import CRD, RESOURCES, SERVICE_ACCOUNT, Resource
from aimschema.resources import NAMESPACE as NAMESPACE_KIND

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(POLICY, GROUP, "v1", "validatingadmissionpolicies", namespaced=False)
BINDINGS = Resource(
    f"{POLICY}Binding", GROUP, "v1", "validatingadmissionpolicybindings", namespaced=False
)
PERMISSIONS = {CRD.kind, SERVICE_ACCOUNT.kind, *(resource.kind for resource in RBAC_KINDS)}
SYSTEM = {"kube-system", "kube-public", "kube-node-lease", NAMESPACE}
DENIED = re.compile(rf"{POLICY} '([a-z-]+)' with binding '\1' denied request: (.*)", re.DOTALL)


@cache
def bodies_of_the_chart() -> list[Body]:
    return render(CHART)


WITHOUT_EFFECT = (
    "a-field-of-tomorrow",  # dropped, as every field that the server does not know
    "inference-service.version-2-cached-ephemeral-container",  # as above
    "inference-service.version-2-cached-another-name",  # KServe's webhook names the container
)


def has_effect(case: Case) -> bool:
    return not any(name in case.name for name in WITHOUT_EFFECT)


def is_permitted(case: Case) -> bool:
    """By the ClusterRole of the account; only deletions are not always."""
    role = next(
        body
        for body in bodies_of_the_chart()
        if (body["kind"], body["metadata"]["name"]) == ("ClusterRole", case.account)
    )
    plural = RESOURCES[case.body["kind"]].plural
    return case.after is not None or any(
        plural in rule["resources"] and "delete" in rule["verbs"] for rule in role["rules"]
    )


def difference(before: Body, after: Body) -> Body:
    """The JSON merge patch (RFC 7386) from one to the other."""
    return {
        key: difference(old, new)
        if isinstance(old := before.get(key), dict) and isinstance(new := after.get(key), dict)
        else after.get(key)
        for key in before | after
        if before.get(key) != after.get(key) or (key in before) != (key in after)
    }


@dataclass(frozen=True)
class Server:
    """The administrator's client, and those of the accounts by their names."""

    admin: Cluster
    accounts: Mapping[str, Cluster]

    async def write(self, case: Case) -> None:
        """Does it as the account, in a new namespace unless the case names one. Raises KubeError if
        the server does not admit it."""
        case, client = await self._placed(case), self.accounts[case.account]
        metadata, resource = case.body["metadata"], RESOURCES[case.body["kind"]]
        if case.before is not None:
            with contextlib.suppress(AlreadyExists):
                await self.admin.create(case.before)
        match case:
            case Case(after=None):
                await client.delete(resource, metadata["namespace"], metadata["name"])
            case Case(before=None, after=dict(body)):
                await client.apply(body, manager=case.account)
            case Case(before=dict(before), after=dict(after)):
                patch = difference(before, after)
                annotations = patch.setdefault("metadata", {}).get("annotations") or {}
                patch["metadata"]["annotations"] = annotations | {"example.org/again": "true"}
                await client.merge_patch(resource, metadata["namespace"], metadata["name"], patch)

    async def _placed(self, case: Case) -> Case:
        place: str = case.body["metadata"]["namespace"]
        if place not in SYSTEM:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "case-"}}
            place = (await self.admin.create(made, resource=NAMESPACE_KIND))["metadata"]["name"]
        return replace(
            case, after=without_owner(case.after, place), before=without_owner(case.before, place)
        )


def without_owner(body: Body | None, place: str) -> Body | None:
    """Without its owner, who is not there: it would be collected."""
    if body is None:
        return None
    metadata = {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}
    return body | {"metadata": metadata | {"namespace": place}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A cluster with the kinds, accounts and policies of the chart, every policy in force."""
    folder, bodies = tmp_path_factory.mktemp("policies"), bodies_of_the_chart()
    async with AsyncExitStack() as stack:

        async def connect(path: Path) -> Cluster:
            cluster = await Cluster.connect(str(path), user_agent="aimlab")
            stack.push_async_callback(cluster.close)
            return cluster

        parts = build_parts(cache_folder(os.environ))
        kubeconfig = await stack.enter_async_context(real_cluster(folder / "cluster", parts))
        admin = await connect(kubeconfig)
        system: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await admin.create(system)
        manifests = [body for body in bodies if body["kind"] in PERMISSIONS]
        await define(admin, manifests)
        for resource in (POLICIES, BINDINGS):
            for body in bodies:
                if body["kind"] == resource.kind:
                    await admin.create(body, resource=resource)
        paths = await account_kubeconfigs(admin, api_of(kubeconfig), manifests, folder)
        made = Server(admin, {name: await connect(path) for name, path in paths.items()})
        for policy in policies():
            await until_in_force(made, policy["metadata"]["name"])
        yield made


async def until_in_force(server: Server, name: str) -> None:
    example = next(case for case in REJECTED if {policy for policy, _ in violated(case)} == {name})

    async def is_in_force() -> bool:
        with contextlib.suppress(Forbidden):
            await server.write(example)
            return False
        return True

    await eventually(is_in_force, f"{name} rejects {example.name}")


async def denial(server: Server, case: Case) -> tuple[str, str] | None:
    """The policy and the message with which the server rejects the write; None where something
    else rejects it: validation, RBAC or a webhook."""
    with pytest.raises((Forbidden, Invalid, Rejected)) as rejection:
        await server.write(case)
    found = DENIED.search(rejection.value.message)
    return found and (found[1], found[2])


async def test_every_policy_compiles_without_a_warning(server: Server) -> None:
    found: dict[str, Body] = {}

    async def are_checked() -> bool:
        for policy in (await server.admin.list(POLICIES)).items:
            found[policy["metadata"]["name"]] = policy.get("status", {}).get("typeChecking")
        return len(found) == len(policies()) and None not in found.values()

    await eventually(are_checked, "the types in all policies are checked")
    assert {name: warnings for name, warnings in found.items() if warnings} == {}


@pytest.mark.parametrize(
    "case", [case for case in ADMITTED if is_permitted(case)], ids=lambda case: case.name
)
async def test_a_real_server_admits_what_a_service_writes(server: Server, case: Case) -> None:
    await server.write(case)


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy["metadata"]["name"])
async def test_each_rule_rejects_on_a_real_server(server: Server, policy: Body) -> None:
    for rule in policy["spec"]["validations"]:
        expected = (policy["metadata"]["name"], rule["message"])
        examples = (case for case in REJECTED if violated(case) == {expected})
        assert expected in [await denial(server, case) for case in itertools.islice(examples, 3)]


@pytest.mark.parametrize(
    "case", [case for case in REJECTED if has_effect(case)], ids=lambda case: case.name
)
async def test_a_real_server_rejects_what_no_service_writes(server: Server, case: Case) -> None:
    """By a policy that the double names too, or as invalid before any policy is asked."""
    by = await denial(server, case)
    assert by is None or by[0] in {policy for policy, _ in violated(case)}
