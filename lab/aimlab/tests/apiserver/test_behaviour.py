"""What the recordings do not cover: collection, namespaces, Pods, logs, paging, forms and
watches, over HTTP."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from aimlab.apiserver import ApiServer, watch
from aimlab.apiserver.queries import Selection
from aimlab.certificates import make_certificate

Obj = dict[str, Any]
CONFIGS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS = "/apis/example.com/v1/namespaces/default/things"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
Api = Any


def config(name: str, **metadata: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {},
    }


def owned_by(owner: Obj, **more: Any) -> Obj:
    ref = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {"ownerReferences": [{**ref, **more}]}


def definition(*versions: str, spec: Obj | None = None) -> Obj:
    schema = {
        "type": "object",
        "properties": {
            "spec": spec or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        },
    }
    return {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": schema},
                }
                for index, name in enumerate(versions)
            ],
        },
    }


def pod(name: str, **spec: Any) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "x"}], **spec},
    }


@asynccontextmanager
async def watching(api: Api, path: str) -> AsyncIterator[Callable[[], Awaitable[Obj]]]:
    """An open watch; calling it waits for the next event."""
    async with api.session.get(path) as answer:
        assert answer.status == 200, await answer.text()

        async def following() -> Obj:
            line = await asyncio.wait_for(answer.content.readline(), 5)
            found: Obj = msgspec.json.decode(line) if line else {"type": "END"}
            return found

        yield following


async def wait_until_deleted(api: Api, collection: str, name: str) -> None:
    """Wait until an object is deleted; harmless if it is already."""
    async with watching(
        api, f"{collection}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=5"
    ) as following:
        while (await api("GET", f"{collection}/{name}"))[0] != 404:
            event = await following()
            assert event["type"] != "END", f"{name} is still there"


class TestGarbageCollection:
    async def test_children_go_with_their_owner_in_the_background(self, api: Api) -> None:
        owner = await api.ok("POST", CONFIGS, config("owner"))
        child = await api.ok("POST", CONFIGS, config("child", **owned_by(owner)))
        await api.ok("POST", CONFIGS, config("grandchild", **owned_by(child)))
        await api.ok("DELETE", f"{CONFIGS}/owner")
        await wait_until_deleted(api, CONFIGS, "grandchild")
        assert (await api("GET", f"{CONFIGS}/child"))[0] == 404

    async def test_foreground_deletion_waits_for_blocking_children(self, api: Api) -> None:
        owner = await api.ok("POST", CONFIGS, config("owner"))
        await api.ok(
            "POST",
            CONFIGS,
            config("child", finalizers=["x/hold"], **owned_by(owner, blockOwnerDeletion=True)),
        )
        deleting = await api.ok("DELETE", f"{CONFIGS}/owner?propagationPolicy=Foreground")
        assert deleting["metadata"]["finalizers"] == ["foregroundDeletion"]
        async with watching(
            api, f"{CONFIGS}?watch=true&fieldSelector=metadata.name%3Dchild"
        ) as following:
            while "deletionTimestamp" not in (await following())["object"]["metadata"]:
                pass
        assert (await api("GET", f"{CONFIGS}/owner"))[0] == 200
        await api.ok("PATCH", f"{CONFIGS}/child", {"metadata": {"finalizers": None}}, MERGE)
        await wait_until_deleted(api, CONFIGS, "owner")

    async def test_orphans_lose_the_reference_and_stay(self, api: Api) -> None:
        owner = await api.ok("POST", CONFIGS, config("owner"))
        await api.ok("POST", CONFIGS, config("child", **owned_by(owner)))
        await api.ok("DELETE", f"{CONFIGS}/owner", {"propagationPolicy": "Orphan"})
        await wait_until_deleted(api, CONFIGS, "owner")
        assert "ownerReferences" not in (await api.ok("GET", f"{CONFIGS}/child"))["metadata"]

    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param({"uid": "11111111-0000-0000-0000-000000000000"}, id="uid"),
            pytest.param({"name": "other"}, id="name"),
        ],
    )
    async def test_a_reference_that_fits_nothing_costs_the_child_its_life(
        self, api: Api, wrong: Obj
    ) -> None:
        owner = await api.ok("POST", CONFIGS, config("owner"))
        await api.ok("POST", CONFIGS, config("child", **owned_by(owner, **wrong)))
        await wait_until_deleted(api, CONFIGS, "child")

    async def test_an_owner_of_a_kind_never_served_is_left_alone(self, api: Api) -> None:
        owner = {
            "apiVersion": "example.com/v1",
            "kind": "Never",
            "metadata": {"name": "x", "uid": "11111111-0000-0000-0000-000000000000"},
        }
        await api.ok("POST", CONFIGS, config("kept", **owned_by(owner)))
        known = {**owner, "apiVersion": "v1", "kind": "ConfigMap"}
        await api.ok("POST", CONFIGS, config("collected", **owned_by(known)))
        await wait_until_deleted(api, CONFIGS, "collected")
        assert (await api("GET", f"{CONFIGS}/kept"))[0] == 200

    async def test_an_owner_in_another_namespace_is_no_owner(self, api: Api) -> None:
        owner = await api.ok("POST", "/api/v1/namespaces/kube-system/configmaps", config("owner"))
        await api.ok("POST", CONFIGS, config("child", **owned_by(owner)))
        await wait_until_deleted(api, CONFIGS, "child")

    async def test_one_of_two_owners_is_enough(self, api: Api) -> None:
        first, second = [
            await api.ok("POST", CONFIGS, config(name)) for name in ("first", "second")
        ]
        refs = owned_by(first)["ownerReferences"] + owned_by(second)["ownerReferences"]
        await api.ok("POST", CONFIGS, config("child", ownerReferences=refs))
        async with watching(
            api, f"{CONFIGS}?watch=true&fieldSelector=metadata.name%3Dchild"
        ) as following:
            await following()
            await api.ok("DELETE", f"{CONFIGS}/first")
            event = await following()
        assert (event["type"], event["object"]["metadata"]["ownerReferences"][0]["name"]) == (
            "MODIFIED",
            "second",
        )

    async def test_a_deleted_job_leaves_its_pods_by_default(self, api: Api) -> None:
        job_spec = {
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
            }
        }
        jobs = "/apis/batch/v1/namespaces/default/jobs"
        job = await api.ok("POST", jobs, {"metadata": {"name": "j"}, "spec": job_spec})
        await api.ok("POST", PODS, {**pod("p"), "metadata": {"name": "p", **owned_by(job)}})
        await api.ok("DELETE", f"{jobs}/j")
        await wait_until_deleted(api, jobs, "j")
        assert (await api("GET", f"{PODS}/p"))[0] == 200


class TestNamespacesAndDefinitions:
    async def test_a_namespace_takes_its_objects_and_no_new_ones_meanwhile(self, api: Api) -> None:
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        await api.ok(
            "POST", "/api/v1/namespaces/n/configmaps", config("held", finalizers=["x/hold"])
        )
        assert (await api.ok("DELETE", "/api/v1/namespaces/n"))["status"]["phase"] == "Terminating"
        status, answer = await api("POST", "/api/v1/namespaces/n/configmaps", config("late"))
        assert (status, answer["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
        await api.ok(
            "PATCH",
            "/api/v1/namespaces/n/configmaps/held",
            {"metadata": {"finalizers": None}},
            MERGE,
        )
        await wait_until_deleted(api, "/api/v1/namespaces", "n")

    async def test_a_quota_limits_the_pods_that_have_not_ended(self, api: Api) -> None:
        quotas = "/api/v1/namespaces/default/resourcequotas"
        await api.ok("POST", quotas, {"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}})
        await api.ok("POST", PODS, pod("first"))
        status, answer = await api("POST", PODS, pod("second"))
        message = (
            'pods "second" is forbidden: exceeded quota: one, requested: pods=1, used: pods=1,'
            " limited: pods=1"
        )
        assert (status, answer["reason"], answer["message"]) == (403, "Forbidden", message)
        await api.ok("PATCH", f"{PODS}/first/status", {"status": {"phase": "Succeeded"}}, MERGE)
        await api.ok("POST", PODS, pod("second"))
        await api.ok("DELETE", f"{quotas}/one")
        await api.ok("POST", PODS, pod("third"))

    async def test_the_first_namespaces_stay(self, api: Api) -> None:
        assert (await api("DELETE", "/api/v1/namespaces/kube-system"))[0] == 403
        assert (await api.ok("GET", "/api/v1/namespaces/kube-system"))["metadata"]["uid"]

    async def test_versions_of_a_kind_share_their_objects(self, api: Api) -> None:
        await api.ok("POST", CRDS, definition("v1", "v2"))
        await api.ok("POST", THINGS, {"metadata": {"name": "t"}, "spec": {"a": 1}})
        listed = await api.ok("GET", THINGS.replace("v1", "v2"))
        assert (listed["apiVersion"], listed["items"][0]["apiVersion"]) == (
            "example.com/v2",
            "example.com/v2",
        )

    async def test_a_removed_definition_takes_its_objects_and_ends_watches(self, api: Api) -> None:
        await api.ok("POST", CRDS, definition("v1"))
        await api.ok("POST", THINGS, {"metadata": {"name": "t"}, "spec": {"a": 1}})
        async with watching(api, f"{THINGS}?watch=true") as following:
            await api.ok("DELETE", f"{CRDS}/things.example.com")
            assert [(await following())["type"] for _ in range(3)] == ["ADDED", "DELETED", "END"]
        assert await api("GET", THINGS) == (404, {"raw": "404 page not found\n"})

    async def test_a_changed_schema_is_in_force_and_ends_watches(self, api: Api) -> None:
        await api.ok("POST", CRDS, definition("v1"))
        strict = definition("v1", spec={"type": "object", "properties": {"a": {"type": "integer"}}})
        async with watching(api, f"{THINGS}?watch=true") as following:
            await api.ok("PATCH", f"{CRDS}/things.example.com", {"spec": strict["spec"]}, MERGE)
            assert (await following())["type"] == "END"
        made = await api.ok("POST", THINGS, {"metadata": {"name": "t"}, "spec": {"a": 1, "b": 2}})
        assert made["spec"] == {"a": 1}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            pytest.param({"spec": {"names": {"plural": "other"}}}, "metadata.name", id="name"),
            pytest.param(
                {"spec": {"versions": [{"name": "v1", "served": True, "storage": True}]}},
                "spec.versions[0].schema.openAPIV3Schema",
                id="schema",
            ),
        ],
    )
    async def test_a_wrong_definition_is_rejected(self, api: Api, change: Obj, field: str) -> None:
        base = definition("v1")
        spec = {
            **base["spec"],
            **change["spec"],
            "names": {**base["spec"]["names"], **change["spec"].get("names", {})},
        }
        status, answer = await api("POST", CRDS, {**base, "spec": spec})
        assert (status, answer["details"]["causes"][0]["field"]) == (422, field)


class TestPods:
    async def test_defaults(self, api: Api) -> None:
        made = await api.ok("POST", PODS, pod("p"))
        assert made["status"]["phase"] == "Pending"
        assert made["spec"]["serviceAccountName"] == "default"
        assert made["spec"]["terminationGracePeriodSeconds"] == 30
        assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"

    async def test_a_pod_without_a_node_goes_at_once(self, api: Api) -> None:
        await api.ok("POST", PODS, pod("p"))
        await api.ok("DELETE", f"{PODS}/p")
        assert (await api("GET", f"{PODS}/p"))[0] == 404

    async def test_a_bound_pod_has_its_grace_period(self, api: Api) -> None:
        await api.ok("POST", PODS, pod("p"))
        await api.ok("POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "n"}})
        deleting = await api.ok("DELETE", f"{PODS}/p")
        assert deleting["metadata"]["deletionGracePeriodSeconds"] == 30
        assert (await api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn"))["items"]
        await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
        assert (await api("GET", f"{PODS}/p"))[0] == 404

    async def test_a_claim_in_use_waits_for_its_pod(self, api: Api) -> None:
        claims = "/api/v1/namespaces/default/persistentvolumeclaims"
        claim_spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        await api.ok("POST", claims, {"metadata": {"name": "c"}, "spec": claim_spec})
        await api.ok(
            "POST",
            PODS,
            pod("p", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        )
        assert (await api.ok("DELETE", f"{claims}/c"))["metadata"]["finalizers"] == [
            "kubernetes.io/pvc-protection"
        ]
        await api.ok("PATCH", f"{PODS}/p/status", {"status": {"phase": "Succeeded"}}, MERGE)
        await wait_until_deleted(api, claims, "c")

    async def test_logs_come_from_the_kubelet_of_the_node(self, api: Api, tmp_path: Path) -> None:
        requests: list[str] = []

        async def log(request: web.Request) -> web.StreamResponse:
            requests.append(request.path_qs)
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"one\n")
            await response.write(b"two\n")
            return response

        kubelet = web.Application()
        kubelet.router.add_get("/containerLogs/{path:.*}", log)
        runner = web.AppRunner(kubelet)
        await runner.setup()
        try:
            await web.TCPSite(
                runner, "127.0.0.1", 0, ssl_context=make_certificate(tmp_path, "kubelet").context()
            ).start()
            status = {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": runner.addresses[0][1]}},
            }
            await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n"}, "status": status})
            await api.ok("POST", PODS, pod("p", nodeName="n"))
            async with api.session.get(
                f"{PODS}/p/log?follow=true&tailLines=2&pretty=true"
            ) as answer:
                assert await answer.text() == "one\ntwo\n"
        finally:
            await runner.cleanup()
        assert requests == ["/containerLogs/default/p/c?follow=true&tailLines=2"]

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            pytest.param("", "does not have a host", id="unbound"),
            pytest.param("?container=x", "container x is not valid", id="container"),
        ],
    )
    async def test_logs_that_do_not_exist(self, api: Api, query: str, why: str) -> None:
        await api.ok("POST", PODS, pod("p"))
        status, answer = await api("GET", f"{PODS}/p/log{query}")
        assert status == 400
        assert why in answer["message"]


class TestLists:
    async def test_pages_show_the_list_as_it_was(self, api: Api) -> None:
        for index in range(5):
            await api.ok("POST", CONFIGS, config(f"c{index}"))
        page = await api.ok("GET", f"{CONFIGS}?limit=2")
        assert page["metadata"]["remainingItemCount"] == 3
        await api.ok("DELETE", f"{CONFIGS}/c3")
        await api.ok("POST", CONFIGS, config("c25"))
        names = [item["metadata"]["name"] for item in page["items"]]
        while page["metadata"].get("continue"):
            page = await api.ok("GET", f"{CONFIGS}?limit=2&continue={page['metadata']['continue']}")
            names += [item["metadata"]["name"] for item in page["items"]]
        assert names == ["c0", "c1", "c2", "c3", "c4"]

    async def test_a_page_out_of_the_history_is_410(self, api: Api) -> None:
        token = urlsafe_b64encode(b'{"v":"meta.k8s.io/v1","rv":1,"start":""}').decode()
        status, answer = await api("GET", f"{CONFIGS}?limit=1&continue={token}")
        assert (status, answer["reason"]) == (410, "Expired")

    async def test_a_version_of_the_future_is_504(self, api: Api) -> None:
        status, answer = await api("GET", f"{CONFIGS}?resourceVersion=999999")
        assert (status, answer["details"]["causes"][0]["reason"]) == (
            504,
            "ResourceVersionTooLarge",
        )

    async def test_metadata_only(self, api: Api) -> None:
        await api.ok("POST", CONFIGS, config("c"))
        _, listed = await api(
            "GET",
            CONFIGS,
            accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        )
        assert (listed["kind"], listed["items"][0].keys()) == (
            "PartialObjectMetadataList",
            {"kind", "apiVersion", "metadata"},
        )

    @pytest.mark.parametrize(
        "plural",
        [
            "pods",
            "services",
            "configmaps",
            "secrets",
            "persistentvolumeclaims",
            "events",
            "serviceaccounts",
            "endpoints",
        ],
    )
    async def test_every_built_in_kind_has_a_table(self, api: Api, plural: str) -> None:
        path = f"/api/v1/namespaces/default/{plural}"
        body = (
            pod("x")
            if plural == "pods"
            else {"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
        )
        await api.ok("POST", path, body)
        _, shown = await api("GET", path, accept=TABLE)
        assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])

    async def test_only_protobuf_is_not_acceptable(self, api: Api) -> None:
        assert (await api("GET", CONFIGS, accept="application/vnd.kubernetes.protobuf"))[0] == 406


class TestWrites:
    async def test_dry_run_answers_and_stores_nothing(self, api: Api) -> None:
        assert (await api.ok("POST", f"{CONFIGS}?dryRun=All", config("c")))["metadata"]["uid"]
        assert (await api("GET", f"{CONFIGS}/c"))[0] == 404

    async def test_unknown_fields_are_warned_about(self, api: Api) -> None:
        await api.ok("POST", CRDS, definition("v1", spec={"type": "object", "properties": {}}))
        async with api.session.post(
            THINGS, json={"metadata": {"name": "t"}, "spec": {"a": 1}}
        ) as answer:
            assert answer.headers["Warning"] == '299 - "unknown field \\"spec.a\\""'

    @pytest.mark.parametrize(
        ("metadata", "code"),
        [
            pytest.param({"resourceVersion": "1"}, 409, id="stale-version"),
            pytest.param({"uid": "11111111-0000-0000-0000-000000000000"}, 409, id="other-uid"),
            pytest.param({}, 200, id="unguarded"),
        ],
    )
    async def test_apply_is_guarded_by_version_and_uid(
        self, api: Api, metadata: Obj, code: int
    ) -> None:
        await api.ok("POST", CONFIGS, config("c"))
        body = config("c", **metadata)
        assert (await api("PATCH", f"{CONFIGS}/c?fieldManager=x&force=true", body, APPLY))[
            0
        ] == code

    async def test_apply_with_a_uid_does_not_create(self, api: Api) -> None:
        body = config("c", uid="11111111-0000-0000-0000-000000000000")
        assert (await api("PATCH", f"{CONFIGS}/c?fieldManager=x", body, APPLY))[0] == 409

    async def test_a_lease_is_not_updated_blindly(self, api: Api) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
        lease = await api.ok(
            "POST", leases, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}
        )
        assert (await api("PUT", f"{leases}/l", {"metadata": {"name": "l"}, "spec": {}}))[0] == 422
        await api.ok("PUT", f"{leases}/l", {**lease, "spec": {"holderIdentity": "b"}})
        assert (await api("PUT", f"{leases}/l", {**lease, "spec": {"holderIdentity": "c"}}))[
            0
        ] == 409

    async def test_events_have_two_forms(self, api: Api) -> None:
        events = "/apis/events.k8s.io/v1/namespaces/default/events"
        body = {
            "metadata": {"name": "e"},
            "note": "n",
            "regarding": {"kind": "Pod", "name": "p"},
            "reportingController": "c",
            "eventTime": None,
        }
        await api.ok("POST", events, body)
        listed = await api.ok(
            "GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp"
        )
        (core,) = listed["items"]
        assert (core["message"], core["reportingComponent"], core["apiVersion"]) == ("n", "c", "v1")
        assert (await api.ok("GET", f"{events}?fieldSelector=regarding.name%3Dp"))["items"][0][
            "note"
        ] == "n"

    @pytest.mark.parametrize("kind", ["application/yaml", "application/json"])
    async def test_bodies_are_json_or_yaml(self, api: Api, kind: str) -> None:
        text = (
            b"{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {t: 2026-01-01}}"
            if "yaml" in kind
            else msgspec.json.encode(config("c"))
        )
        async with api.session.post(CONFIGS, data=text, headers={"Content-Type": kind}) as answer:
            assert answer.status == 201

    async def test_a_broken_body_is_a_bad_request(self, api: Api) -> None:
        async with api.session.post(
            CONFIGS, data=b"{", headers={"Content-Type": "application/json"}
        ) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (400, "BadRequest")


class TestWatches:
    async def test_a_table_watcher_gets_rows(self, api: Api) -> None:
        async with api.session.get(f"{CONFIGS}?watch=true", headers={"Accept": TABLE}) as answer:
            await api.ok("POST", CONFIGS, config("c"))
            event = msgspec.json.decode(await asyncio.wait_for(answer.content.readline(), 5))
        assert (event["type"], event["object"]["kind"], event["object"]["rows"][0]["cells"][0]) == (
            "ADDED",
            "Table",
            "c",
        )

    async def test_it_ends_after_its_time(self, api: Api) -> None:
        async with watching(api, f"{CONFIGS}?watch=true&timeoutSeconds=1") as following:
            assert (await following())["type"] == "END"

    async def test_bookmarks_come_in_quiet_times(self, server: ApiServer) -> None:
        async def quick(request: web.Request) -> web.StreamResponse:
            resource = server.cluster.find("", "v1", "configmaps")
            assert resource
            watcher = watch.Watcher(server.cluster, Selection(resource, None, None, None), None)
            options = watch.WatchOptions(
                version=0, bookmarks=True, initial_events=False, timeout_s=5
            )
            watcher.start(options)
            return await watch.stream(request, watcher, options, bookmark_every_s=0.01)

        quick_app = web.Application()
        quick_app.router.add_get("/", quick)
        runner = web.AppRunner(quick_app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as answer,
            ):
                event = msgspec.json.decode(await asyncio.wait_for(answer.content.readline(), 5))
        finally:
            await runner.cleanup()
        assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == (
            "BOOKMARK",
            str(server.cluster.store.version),
        )

    @pytest.mark.parametrize(
        "query", ["sendInitialEvents=true", "resourceVersionMatch=NotOlderThan"]
    )
    async def test_half_a_watch_list_is_rejected(self, api: Api, query: str) -> None:
        assert (await api("GET", f"{CONFIGS}?watch=true&{query}"))[0] == 422

    async def test_a_watcher_that_does_not_keep_up_is_cut_off(
        self, server: ApiServer, api: Api
    ) -> None:
        resource = server.cluster.find("", "v1", "configmaps")
        assert resource
        watcher = watch.Watcher(
            server.cluster, Selection(resource, None, None, None), None, backlog=2
        )
        watcher.start(
            watch.WatchOptions(version=0, bookmarks=False, initial_events=False, timeout_s=5)
        )
        for index in range(3):
            await api.ok("POST", CONFIGS, config(f"c{index}"))
        assert watcher.closed
        assert watcher.take() == b""

    async def test_stopping_the_server_ends_watches(self) -> None:
        server = ApiServer()
        async with (
            aiohttp.ClientSession(await server.start()) as session,
            session.get(f"{CONFIGS}?watch=true") as answer,
        ):
            await asyncio.wait_for(server.stop(), 2)
            assert await answer.content.read() == b""


class TestDocuments:
    async def test_aggregated_discovery_and_openapi_show_a_definition(self, api: Api) -> None:
        await api.ok("POST", CRDS, definition("v1"))
        accept = (
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        )
        _, document = await api("GET", "/apis", accept=accept)
        (group,) = [item for item in document["items"] if item["metadata"]["name"] == "example.com"]
        assert group["versions"][0]["resources"][0]["responseKind"]["kind"] == "Thing"
        index = msgspec.json.decode(
            (await api.ok("GET", "/openapi/v3"))["raw"]
        )  # it comes as text/plain
        document = await api.ok("GET", index["paths"]["apis/example.com/v1"]["serverRelativeURL"])
        assert "com.example.v1.Thing" in document["components"]["schemas"]

    @pytest.mark.parametrize("path", ["/readyz", "/livez", "/healthz"])
    async def test_health(self, api: Api, path: str) -> None:
        assert await api("GET", path) == (200, {"raw": "ok"})

    @pytest.mark.parametrize("path", ["/version", "/api", "/apis"])
    async def test_a_slash_at_the_end_does_no_harm(self, api: Api, path: str) -> None:
        assert await api("GET", path) == await api("GET", f"{path}/")

    async def test_plain_discovery(self, api: Api) -> None:
        assert (await api.ok("GET", "/api"))["versions"] == ["v1"]
        assert "batch" in [group["name"] for group in (await api.ok("GET", "/apis"))["groups"]]
        pods = [
            found
            for found in (await api.ok("GET", "/api/v1"))["resources"]
            if found["name"].startswith("pods")
        ]
        assert [found["name"] for found in pods] == [
            "pods",
            "pods/binding",
            "pods/log",
            "pods/status",
        ]


async def test_a_bare_server_refuses_loopback_endpoints() -> None:
    slice_of = {
        "metadata": {"name": "e"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1", "127.0.0.1"]}],
    }
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    async with (
        ApiServer(bare=True) as server,
        aiohttp.ClientSession(server.url, trust_env=False) as session,
        session.post(path, json=slice_of) as answer,
    ):
        body = await answer.json()
    assert (answer.status, [cause["field"] for cause in body["details"]["causes"]]) == (
        422,
        ["endpoints[0].addresses[1]"],
    )


@pytest.mark.parametrize(
    ("time", "part"),
    [
        pytest.param("2026-01-01T00:00:00Z", 'cannot parse "Z" as ".000000"', id="no-fraction"),
        pytest.param(
            "2026-01-01T00:00:00.123Z", 'cannot parse ".123Z" as ".000000"', id="three-digits"
        ),
        pytest.param(
            "2026-01-01T00:00:00.1234567Z", 'cannot parse "7Z" as "Z07:00"', id="seven-digits"
        ),
        pytest.param("soon", 'cannot parse "soon" as "2006"', id="no-time"),
    ],
)
async def test_a_micro_time_has_six_digits(api: Api, time: str, part: str) -> None:
    """As kube-apiserver 1.36.3 answered."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    status, answer = await api(
        "POST", leases, {"metadata": {"name": "lease"}, "spec": {"renewTime": time}}
    )
    why = f'parsing time "{time}" as "2006-01-02T15:04:05.000000Z07:00": {part}'
    assert (status, answer["message"]) == (
        400,
        f'Lease in version "v1" cannot be handled as a Lease: {why}',
    )


@pytest.mark.parametrize(
    "time", ["2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.123456+01:00", None]
)
async def test_a_micro_time_with_six_digits_or_none_is_taken(api: Api, time: str | None) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await api.ok("POST", leases, {"metadata": {"name": "lease"}, "spec": {"renewTime": time}})
