"""Admission webhooks are asked before a write, and one that does not answer stops it."""

from typing import Any

import pytest
from aiohttp import web

from aimctl.local.ports import free_ports

Body = dict[str, Any]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


def configuration(
    client: Body, *operations: str, resources: tuple[str, ...] = ("configmaps",), **webhook: Any
) -> Body:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": operations or ("CREATE",),
        "resources": resources,
    }
    webhook_entry = {"name": "asked.example.com", "clientConfig": client, "rules": [rule]} | webhook
    head = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
    }
    return head | {"metadata": {"name": "asked"}, "webhooks": [webhook_entry]}


DOWN: Body = {
    "service": {"namespace": "kserve", "name": "kserve-webhook-server", "path": "/validate"}
}


def config_map(**labels: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "labels": labels},
        "data": {"a": "b"},
    }


async def test_a_webhook_without_endpoints_blocks_writes(api: Any) -> None:
    await api.ok("POST", CONFIGURATIONS, configuration(DOWN))
    status, answer = await api("POST", MAPS, config_map())
    assert (status, answer["reason"]) == (500, "InternalError")
    assert (
        answer["message"]
        == 'Internal error occurred: failed calling webhook "asked.example.com": failed to call'
        ' webhook: Post "https://kserve-webhook-server.kserve.svc:443/validate?timeout=10s": no'
        ' endpoints available for service "kserve-webhook-server"'
    )
    assert (await api("PATCH", f"{MAPS}/cm?fieldManager=x", config_map(), APPLY))[0] == 500
    await api.ok("DELETE", f"{CONFIGURATIONS}/asked")
    await api.ok("POST", MAPS, config_map())


@pytest.mark.parametrize(
    ("webhook_configuration", "status"),
    [
        pytest.param(configuration(DOWN, failurePolicy="Ignore"), 201, id="ignored"),
        pytest.param(configuration(DOWN, "UPDATE"), 201, id="another-operation"),
        pytest.param(configuration(DOWN, resources=("pods",)), 201, id="another-kind"),
        pytest.param(
            configuration(DOWN, objectSelector={"matchLabels": {"asked": "yes"}}),
            201,
            id="not-selected",
        ),
        pytest.param(
            configuration(
                DOWN, namespaceSelector={"matchExpressions": [{"key": "x", "operator": "Exists"}]}
            ),
            201,
            id="not-there",
        ),
        pytest.param(configuration(DOWN, "*", resources=("*/*",)), 500, id="everything"),
        pytest.param(configuration({"url": "https://127.0.0.1:9/"}), 500, id="no-listener"),
    ],
)
async def test_only_what_its_rules_name_is_stopped(
    api: Any, webhook_configuration: Body, status: int
) -> None:
    await api.ok("POST", CONFIGURATIONS, webhook_configuration)
    assert (await api("POST", MAPS, config_map()))[0] == status


async def test_updates_and_deletions_are_stopped_as_well(api: Any) -> None:
    await api.ok("POST", MAPS, config_map())
    await api.ok("POST", CONFIGURATIONS, configuration(DOWN, "UPDATE", "DELETE"))
    assert (await api("PATCH", f"{MAPS}/cm", {"data": {"a": "c"}}, MERGE))[0] == 500
    assert (await api("DELETE", f"{MAPS}/cm"))[0] == 500


async def test_a_webhook_gets_what_would_be_stored_and_may_deny(api: Any) -> None:
    reviews: list[Body] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        reviews.append(body["request"])
        allowed = body["request"]["object"]["data"]["a"] != "bad"
        status = (
            {}
            if allowed
            else {"status": {"code": 403, "reason": "Forbidden", "message": "a is bad"}}
        )
        return web.json_response(
            {"response": {"uid": body["request"]["uid"], "allowed": allowed} | status}
        )

    app = web.Application()
    app.add_routes([web.post("/", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_ports(1)[0]
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await api.ok(
            "POST",
            CONFIGURATIONS,
            configuration({"url": f"http://127.0.0.1:{port}/"}, "CREATE", "UPDATE"),
        )
        await api.ok("POST", MAPS, config_map())
        status, denied = await api("PATCH", f"{MAPS}/cm", {"data": {"a": "bad"}}, MERGE)
    finally:
        await runner.cleanup()
    assert (status, denied["reason"]) == (403, "Forbidden")
    assert denied["message"] == 'admission webhook "asked.example.com" denied the request: a is bad'
    assert [one["operation"] for one in reviews] == ["CREATE", "UPDATE"]
    assert (reviews[0]["oldObject"], reviews[1]["oldObject"]["data"]) == (None, {"a": "b"})
    assert (await api.ok("GET", f"{MAPS}/cm"))["data"] == {"a": "b"}
