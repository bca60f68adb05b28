"""What deploy/rbac grants, and what it must never grant. That all of it is needed is shown by
tests/chaos/test_permissions.py."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from aimctl.component_registry import SERVICES
from aimctl.manifests import documents, rbac
from aimkube.rbac import Grant, list_grants
from aimlab.apiserver import ApiServer
from aimlab.apiserver.access import RBAC_GROUP
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, STATUSWRITER, WATCHER
from aimschema.resources import (
    AIM_GROUP,
    AIM_KINDS,
    CLAIM,
    EVENT,
    INFERENCE_SERVICE,
    LEASE,
    POD,
    SERVICE,
    TEMPLATE,
    WATCHED,
)
from tools.permission_docs import grants_sentence

ROOT = Path(__file__).parents[2]
USERS = "users.yaml"
OF_A_NAMESPACE = {resource.plural for resource in AIM_KINDS if resource.namespaced}
SHAPE = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
GRANTS = list_grants(rbac())
USER_ROLES = documents((ROOT / "deploy" / "rbac" / USERS).read_text())
READS = {"get", "list", "watch"}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
Run = Callable[..., Awaitable[tuple[int | None, str]]]
ESCALATING = {"escalate", "bind", "impersonate", "*"}
NOT_OURS = {
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "admissionregistration.k8s.io",
    "authentication.k8s.io",
    "certificates.k8s.io",
    "*",
}


def account(service: str) -> str:
    return f"aim-{service}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_one_file_with_an_account_and_its_roles(service: str) -> None:
    name = account(service)
    bodies = documents((ROOT / "deploy" / "rbac" / f"{name}.yaml").read_text())
    assert [body["kind"] for body in bodies] == SHAPE
    assert {body["metadata"]["name"] for body in bodies} == {name}
    assert {body["metadata"].get("namespace", SYSTEM_NAMESPACE) for body in bodies} == {
        SYSTEM_NAMESPACE
    }
    for binding in (body for body in bodies if "roleRef" in body):
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": name, "namespace": SYSTEM_NAMESPACE}
        ]
        assert binding["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": binding["kind"].removesuffix("Binding"),
            "name": name,
        }


def test_there_are_no_other_files() -> None:
    assert sorted(file.name for file in (ROOT / "deploy" / "rbac").iterdir()) == sorted(
        [*(f"{account(service)}.yaml" for service in SERVICES), USERS]
    )


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_has_the_granted_permissions(service: str) -> None:
    page = " ".join((ROOT / "services" / service / "README.md").read_text().split())
    assert grants_sentence(GRANTS, account(service)) in page


def test_discovery_alone_reads_secrets_and_only_the_named_one() -> None:
    assert [grant for grant in GRANTS if grant.resource.partition("/")[0] in {"secrets", "*"}] == [
        Grant(account(DISCOVERY), SYSTEM_NAMESPACE, "", "secrets", ("registries",), "get")
    ]


def test_only_the_watcher_watches_and_it_changes_nothing() -> None:
    listing = {
        grant
        for grant in GRANTS
        if grant.verb in {"list", "watch"}
        and grant.account != account(WATCHER)
        and grant.resource != LEASE.plural
    }
    of_jobs = {Grant(account(DISCOVERY), "", "", POD.plural, (), "list")}
    why_pods_wait = {
        Grant(account(service), "", EVENT.group, EVENT.plural, (), "list")
        for service in (CACHER, DISCOVERY, DEPLOYER)
    }
    users_of_caches = (SERVICE, TEMPLATE, INFERENCE_SERVICE, POD, CLAIM)
    before_evictions = {
        Grant(account(CACHER), "", resource.group, resource.plural, (), "list")
        for resource in users_of_caches
    }
    assert listing == of_jobs | why_pods_wait | before_evictions
    own = [
        grant
        for grant in GRANTS
        if grant.account == account(WATCHER) and grant.resource != LEASE.plural
    ]
    assert {grant.verb for grant in own} <= READS
    assert {(grant.group, grant.resource) for grant in own} == {
        (resource.group, resource.plural) for resource in WATCHED
    }


def test_the_statuswriter_alone_writes_status_and_no_spec() -> None:
    assert {grant.account for grant in GRANTS if grant.resource.endswith("/status")} == {
        account(STATUSWRITER)
    }
    own = [
        grant
        for grant in GRANTS
        if grant.account == account(STATUSWRITER) and grant.group == AIM_GROUP
    ]
    assert {(grant.resource.partition("/")[2], grant.verb) for grant in own} == {
        ("status", "patch"),
        ("", "get"),
    }


def test_nothing_grants_more_than_it_names() -> None:
    assert [
        grant
        for grant in GRANTS
        if grant.verb in ESCALATING or "*" in grant.resource or grant.group in NOT_OURS
    ] == []
    assert {
        grant.resource
        for grant in GRANTS
        if "/" in grant.resource and not grant.resource.endswith("/status")
    } == {f"{POD.plural}/log"}
    assert not {grant.resource for grant in GRANTS} & {
        "nodes",
        "namespaces",
        "serviceaccounts",
        "persistentvolumes",
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_holds_its_own_lease_and_no_other(service: str) -> None:
    leases = {
        (grant.namespace, grant.names, grant.verb)
        for grant in GRANTS
        if grant.account == account(service) and grant.resource == LEASE.plural
    }
    named = (SYSTEM_NAMESPACE, (account(service),))
    assert leases == {
        (*named, "get"),
        (*named, "watch"),
        (*named, "update"),
        (SYSTEM_NAMESPACE, (), "create"),
    }


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Run]:
    """On a new API server with the control plane's namespace; gives exit code and output."""
    async with ApiServer() as server:

        async def run(*args: str) -> tuple[int | None, str]:
            command = [
                str(Path(sys.executable).with_name("kubectl")),
                "--server",
                server.url,
                *args,
            ]
            env = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
            process = await asyncio.create_subprocess_exec(
                *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await process.communicate()
            return process.returncode, output.decode()

        assert (await run("create", "namespace", SYSTEM_NAMESPACE))[0] == 0
        yield run


async def test_kubectl_applies_them_and_lists_permissions(kubectl: Run) -> None:
    code, output = await kubectl("apply", "-f", str(ROOT / "deploy" / "rbac"))
    assert (code, output.count(" created\n")) == (
        0,
        len(SHAPE) * len(SERVICES) + len(USER_ROLES),
    ), output
    cacher = f"--as=system:serviceaccount:{SYSTEM_NAMESPACE}:{account(CACHER)}"
    assert await kubectl("auth", "can-i", "create", "jobs", "--namespace", "ml", cacher) == (
        0,
        "yes\n",
    )
    assert (
        await kubectl("auth", "can-i", "get", "secrets", "--namespace", SYSTEM_NAMESPACE, cacher)
    )[0] == 1


def test_roles_for_users_have_every_kind_and_no_status_write() -> None:
    view, edit = sorted(USER_ROLES, key=lambda role: len(role["rules"]), reverse=True)
    roles = [
        {
            resource: set(rule["verbs"])
            for rule in role["rules"]
            for resource in rule["resources"]
            if rule["apiGroups"] == [AIM_GROUP]
        }
        for role in (view, edit)
    ]
    assert roles[1] == dict.fromkeys(OF_A_NAMESPACE, READS | WRITES)
    assert roles[0].keys() >= {resource.plural for resource in AIM_KINDS}
    assert all(verbs <= READS for verbs in roles[0].values())


def binding(file: Path, role: str, namespace: str = "") -> str:
    """A manifest that gives a user named like the ClusterRole that role, in a namespace or
    everywhere."""
    place = {"namespace": namespace} if namespace else {}
    subject = {"kind": "User", "name": role, "apiGroup": RBAC_GROUP}
    reference = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role}
    body = {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": role, **place},
    }
    file.write_text(yaml.safe_dump(body | {"subjects": [subject], "roleRef": reference}))
    return str(file)


@pytest.mark.parametrize(
    ("role", "verbs"), [("admin", READS | WRITES), ("edit", READS | WRITES), ("view", READS)]
)
async def test_who_is_this_of_a_namespace_is_it_for_our_kinds(
    kubectl: Run, tmp_path: Path, role: str, verbs: set[str]
) -> None:
    """By the ClusterRoles that every cluster has; in that namespace alone, and only reading
    status."""
    await kubectl("apply", "-f", str(ROOT / "deploy" / "crds"), "-f", str(ROOT / "deploy" / "rbac"))
    assert (await kubectl("create", "-f", binding(tmp_path / "binding.yaml", role, "default")))[
        0
    ] == 0

    async def may(verb: str, resource: str, *more: str) -> bool:
        code, _ = await kubectl(
            "auth", "can-i", verb, f"{resource}.{AIM_GROUP}", f"--as={role}", *more
        )
        return code == 0

    assert {
        verb for verb in READS | WRITES if await may(verb, SERVICE.plural, "-n", "default")
    } == verbs
    assert {await may("create", resource, "-n", "default") for resource in OF_A_NAMESPACE} == {
        "create" in verbs
    }
    assert not await may("get", SERVICE.plural, "-n", "kube-system")
    assert await may("get", SERVICE.plural, "-n", "default", "--subresource=status")
    assert not await may("patch", SERVICE.plural, "-n", "default", "--subresource=status")


async def test_who_views_the_whole_cluster_sees_its_models(kubectl: Run, tmp_path: Path) -> None:
    await kubectl("apply", "-f", str(ROOT / "deploy" / "crds"), "-f", str(ROOT / "deploy" / "rbac"))
    models = f"aimclustermodels.{AIM_GROUP}"
    assert (await kubectl("auth", "can-i", "list", models, "--as=view"))[0] == 1
    assert (await kubectl("create", "-f", binding(tmp_path / "binding.yaml", "view")))[0] == 0
    assert (await kubectl("auth", "can-i", "list", models, "--as=view"))[0] == 0
    assert (await kubectl("auth", "can-i", "create", models, "--as=view"))[0] == 1
