"""The real kubectl against the double: the commands of the README must work."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from aimlab.apiserver import ApiServer

KUBECTL = Path(sys.executable).with_name("kubectl")
TRANSCRIPTS = Path(__file__).parent / "transcripts"
WIDGET = """
apiVersion: lab.example.com/v1alpha1
kind: Widget
metadata: {name: kw, namespace: lab}
spec: {model: "m/a:1", size: 10Gi}
"""
NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: lab}}"
BUILT_IN = """
{apiVersion: v1, kind: ConfigMap, metadata: {name: cm, namespace: lab}, data: {a: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: lab}
spec: {containers: [{name: c, image: "x:VALUE"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: j, namespace: lab}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "x:1"}]}}}
"""
Run = Callable[..., Awaitable[str]]


def crd() -> str:
    """The Widget definition that the recordings use."""
    lines = (TRANSCRIPTS / "discovery.jsonl").read_text().splitlines()
    return msgspec.json.encode(msgspec.json.decode(lines[2])["request"]["body"]).decode()


@pytest.fixture
async def bare(server: ApiServer, tmp_path: Path) -> AsyncIterator[Run]:
    """Runs kubectl with its own home; returns its output. Fails the test if it fails (or, with
    `fails`, if it does not)."""
    env = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none"), "PATH": os.defpath}
    started: list[asyncio.subprocess.Process] = []

    async def run(*args: str, stdin: str = "", fails: bool = False) -> str:
        pipe = asyncio.subprocess.PIPE
        command = [str(KUBECTL), "--server", server.url, *args]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=env
        )
        started.append(process)
        output, _ = await process.communicate(stdin.encode())
        assert (process.returncode != 0) is fails, f"kubectl {' '.join(args)}: {output.decode()}"
        return output.decode()

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def kubectl(bare: Run) -> Run:
    """kubectl with the Widget kind and the namespace lab in place."""
    await bare("apply", "-f", "-", stdin=f"{NAMESPACE}\n---\n{crd()}")
    return bare


async def test_a_definition_becomes_established(kubectl: Run) -> None:
    assert "condition met" in await kubectl(
        "wait", "--for=condition=Established", "crd/widgets.lab.example.com", "--timeout=5s"
    )
    assert "wd" in await kubectl("api-resources", "--api-group=lab.example.com")


async def test_apply_prints_created_then_unchanged_then_configured(kubectl: Run) -> None:
    assert "created" in await kubectl("apply", "-f", "-", stdin=WIDGET)
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=WIDGET)
    assert "configured" in await kubectl("apply", "-f", "-", stdin=WIDGET.replace("10Gi", "20Gi"))
    assert "20Gi" in await kubectl("get", "wd", "kw", "-n", "lab", "-o", "yaml")


async def test_apply_moves_from_client_side_to_server_side(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    assert "serverside-applied" in await kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=WIDGET
    )
    managed = await kubectl("get", "wd", "kw", "-n", "lab", "-o", "yaml", "--show-managed-fields")
    assert "operation: Apply" in managed
    assert "kubectl-client-side-apply" not in managed


async def test_apply_server_side_names_the_other_manager_on_conflict(kubectl: Run) -> None:
    await kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=WIDGET)
    output = await kubectl(
        "apply",
        "--server-side",
        "--field-manager=two",
        "-f",
        "-",
        stdin=WIDGET.replace("10Gi", "20Gi"),
        fails=True,
    )
    assert 'conflict with "one": .spec.size' in output


async def test_server_side_apply_conflicts_unless_forced(
    kubectl: Run,
) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    manifest = WIDGET.replace("10Gi", "20Gi")
    output = await kubectl("apply", "--server-side", "-f", "-", stdin=manifest, fails=True)
    assert re.search(
        r'1 conflict: conflict with "kubectl-client-side-apply" using lab.example.com/v1alpha1 at'
        r" \S+: \.spec\.size\n",
        output,
    )
    assert "serverside-applied" in await kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest
    )
    assert "serverside-applied" in await kubectl(
        "apply", "--server-side", "-f", "-", stdin=manifest
    )


async def test_labels_annotations_and_patches(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    widget = ("wd", "kw", "-n", "lab")
    assert "labeled" in await kubectl("label", *widget, "team=a")
    assert "not labeled" in await kubectl("label", *widget, "team=a")
    assert "--overwrite is false" in await kubectl("label", *widget, "team=b", fails=True)
    assert "annotated" in await kubectl("annotate", *widget, "note=c")
    assert "patched" in await kubectl(
        "patch",
        *widget,
        "--type=json",
        '-p=[{"op": "replace", "path": "/spec/size", "value": "30Gi"}]',
    )
    assert "patched (no change)" in await kubectl(
        "patch", *widget, "--type=merge", '-p={"spec": {"size": "30Gi"}}'
    )
    assert "not supported" in await kubectl(
        "patch", *widget, '-p={"spec": {"size": "40Gi"}}', fails=True
    )
    shown = "jsonpath={.metadata.labels} {.metadata.annotations.note} {.spec.size}"
    assert await kubectl("get", *widget, "-o", shown) == '{"team":"a"} c 30Gi'
    assert "kw" in await kubectl("get", "wd", "-A", "-l", "team=a", "-o", "name")
    assert await kubectl("get", "wd", "-A", "-l", "team!=a", "-o", "name") == ""


async def test_built_in_kinds_take_strategic_merge_patches(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=BUILT_IN)
    patch = '{"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}, "suspend": true}}'
    assert "patched" in await kubectl("patch", "cm", "cm", "-n", "lab", '-p={"data": {"c": "d"}}')
    assert (
        await kubectl("get", "cm", "cm", "-n", "lab", "-o", "jsonpath={.data}")
        == '{"a":"b","c":"d"}'
    )
    assert "spec.template" in await kubectl(
        "patch", "job", "j", "-n", "lab", f"-p={patch}", fails=True
    )


async def test_diff_shows_what_apply_would_change_and_changes_nothing(kubectl: Run) -> None:
    if shutil.which("diff") is None:
        pytest.skip("kubectl diff needs the command diff, which is not on this machine")
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    output = await kubectl("diff", "-f", "-", stdin=WIDGET.replace("10Gi", "20Gi"), fails=True)
    assert re.search(r"^-  size: 10Gi\n\+  size: 20Gi$", output, re.MULTILINE)
    assert await kubectl("diff", "-f", "-", stdin=WIDGET) == ""
    assert await kubectl("get", "wd", "kw", "-n", "lab", "-o", "jsonpath={.spec.size}") == "10Gi"


async def test_unknown_fields_and_bad_values_are_rejected(kubectl: Run) -> None:
    assert 'unknown field "spec.nope"' in await kubectl(
        "apply", "-f", "-", stdin=WIDGET.replace("size:", "nope:"), fails=True
    )
    assert "spec.model" in await kubectl(
        "apply", "-f", "-", stdin=WIDGET.replace("m/a:1", ""), fails=True
    )


async def test_get_prints_the_columns_of_the_definition(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    header, row = (await kubectl("get", "lab", "-n", "lab")).splitlines()
    assert header.split() == ["NAME", "MODEL", "STATUS", "AGE"]
    assert row.split()[:2] == ["kw", "m/a:1"]


async def test_status_patch_and_wait_for_it(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    waiting = asyncio.ensure_future(
        kubectl(
            "wait", "wd/kw", "-n", "lab", "--for=jsonpath={.status.status}=Ready", "--timeout=10s"
        )
    )
    await kubectl(
        "patch",
        "wd",
        "kw",
        "-n",
        "lab",
        "--type=merge",
        "--subresource=status",
        '-p={"status":{"status":"Ready"}}',
    )
    assert "condition met" in await waiting


async def test_wait_for_a_condition(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    waiting = asyncio.ensure_future(
        kubectl("wait", "wd/kw", "-n", "lab", "--for=condition=Ready", "--timeout=10s")
    )
    condition = (
        '{"type": "Ready", "status": "True", "reason": "Done", "message": "", "lastTransitionTime":'
        ' "2026-01-01T00:00:00Z"}'
    )
    patch = f'-p={{"status": {{"conditions": [{condition}]}}}}'
    await kubectl("patch", "wd", "kw", "-n", "lab", "--type=merge", "--subresource=status", patch)
    assert "condition met" in await waiting
    assert "timed out" in await kubectl(
        "wait", "wd/kw", "-n", "lab", "--for=condition=Other", "--timeout=1s", fails=True
    )


async def test_describe_shows_the_events_of_an_object(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    uid = await kubectl("get", "wd", "kw", "-n", "lab", "-o", "jsonpath={.metadata.uid}")
    regarding = (
        "{apiVersion: lab.example.com/v1alpha1, kind: Widget, name: kw, namespace: lab, uid:"
        f" {uid}}}"
    )
    event = (
        "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e1, namespace: lab},"
        f" note: it went well, reason: Done, type: Normal, regarding: {regarding},"
        " reportingController: lab/x, reportingInstance: x-0, action: Do, eventTime:"
        " '2026-01-01T00:00:00.000000Z'}"
    )
    await kubectl("create", "-f", "-", stdin=event)
    assert "it went well" in await kubectl("describe", "wd", "kw", "-n", "lab")
    assert "widget/kw" in await kubectl("get", "events", "-n", "lab")


async def test_built_in_kinds_are_applied_twice_and_changed(kubectl: Run) -> None:
    assert (await kubectl("apply", "-f", "-", stdin=BUILT_IN)).count("created") == 3
    assert (await kubectl("apply", "-f", "-", stdin=BUILT_IN)).count("unchanged") == 3
    assert "pod/p configured" in await kubectl(
        "apply", "-f", "-", stdin=BUILT_IN.replace("VALUE", "other")
    )
    assert "pod/p" in await kubectl("get", "all", "-n", "lab")


async def test_watching_prints_changes_as_they_come(
    kubectl: Run, server: ApiServer, tmp_path: Path
) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    command = [str(KUBECTL), "--server", server.url, "get", "wd", "-n", "lab", "-w", "--no-headers"]
    env = {"HOME": str(tmp_path), "PATH": ""}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=env
    )
    try:
        assert process.stdout
        await asyncio.wait_for(process.stdout.readline(), 10)
        await kubectl(
            "patch",
            "wd",
            "kw",
            "-n",
            "lab",
            "--type=merge",
            "--subresource=status",
            '-p={"status":{"status":"Ready"}}',
        )
        assert b"Ready" in await asyncio.wait_for(process.stdout.readline(), 10)
    finally:
        process.kill()
        await process.wait()


async def test_delete_waits_until_the_object_is_deleted(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    waiting = asyncio.ensure_future(
        kubectl("wait", "wd/kw", "-n", "lab", "--for=delete", "--timeout=10s")
    )
    assert "deleted" in await kubectl("delete", "wd", "kw", "-n", "lab")
    await waiting
    assert "NotFound" in await kubectl("get", "wd", "kw", "-n", "lab", fails=True)


async def test_deleting_a_namespace_or_definition_deletes_its_objects(kubectl: Run) -> None:
    await kubectl("apply", "-f", "-", stdin=WIDGET)
    await kubectl("delete", "crd", "widgets.lab.example.com", "--timeout=10s")
    assert "could not find the requested resource" in await kubectl(
        "get", "widgets", "-A", fails=True
    )
    await kubectl("apply", "-f", "-", stdin=BUILT_IN)
    await kubectl("delete", "ns", "lab", "--timeout=10s")
    assert "No resources found" in await kubectl("get", "jobs", "-n", "lab")


@pytest.mark.parametrize(
    ("kind", "args", "shows"),
    [
        pytest.param("ns", ("foo",), "kubernetes.io/metadata.name: foo", id="namespace"),
        pytest.param("configmap", ("foo", "--from-literal=a=b"), "a: b", id="configmap"),
        pytest.param("secret", ("generic", "foo", "--from-literal=a=b"), "a: Yg==", id="secret"),
        pytest.param("sa", ("foo",), "kind: ServiceAccount", id="serviceaccount"),
    ],
)
async def test_create_sends_protobuf(
    bare: Run, kind: str, args: tuple[str, ...], shows: str
) -> None:
    await bare("create", kind, *args)
    assert shows in await bare("get", kind, "foo", "-o", "yaml")


async def test_a_kind_not_accepted_as_protobuf_names_the_remedy(bare: Run) -> None:
    assert "apply -f" in await bare("create", "deployment", "d", "--image=x", fails=True)


RBAC = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: lab}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: lab}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: app, namespace: lab}]
"""


async def test_an_account_gets_a_token_and_the_rights_of_its_role(kubectl: Run) -> None:
    """By --as: over plain HTTP kubectl sends no token (client-go reads credentials for TLS
    alone)."""
    await kubectl("create", "sa", "app", "-n", "lab")
    await kubectl("apply", "-f", "-", stdin=f"{BUILT_IN}---{RBAC}")
    assert len((await kubectl("create", "token", "app", "-n", "lab", "--duration=1h")).strip()) > 20
    as_app = "--as=system:serviceaccount:lab:app"
    assert "cm" in await kubectl("get", "configmaps", "-n", "lab", as_app)
    assert 'cannot list resource "secrets"' in await kubectl(
        "get", "secrets", "-n", "lab", as_app, fails=True
    )
    for may in ("get configmaps -n lab", "get pods --subresource=log -n lab", "get /version"):
        assert await kubectl("auth", "can-i", *may.split(), as_app) == "yes\n"
    for may_not in (
        "delete configmaps -n lab",
        "get pods -n lab",
        "get configmaps -n default",
        "get /lab/calls",
    ):
        assert "no" in await kubectl("auth", "can-i", *may_not.split(), as_app, fails=True)
