"""Catalogue entries and their images on processes: what a registry answers is what a person reads,
and a changed image rolls out on success only.

The tests of this file share one control plane, and each has objects of its own.
"""

import asyncio
import base64
import contextlib
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import aimbus
from aimbus import Bus, NatsServer
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children, until_answers
from aimctl.local.services import start_services
from aimctl.manifests import crds, rbac
from aimkube import Cluster, NotFound
from aimlab.accounts import write_kubeconfig
from aimlab.apiserver import ApiServer
from aimlab.crds import bundled_crds
from aimlab.gateway.traefik import Api
from aimlab.kinds import RBAC_KINDS
from aimlab.lab import install
from aimlab.node.images import ImageCommand, write_images
from aimlab.sources.registry import Registry
from aimschema import subjects
from aimschema.messages import encode
from aimschema.names import image_config_map
from aimschema.reasons import DISCOVERY
from aimschema.resources import (
    CONFIG,
    CONFIG_MAP,
    EVENT,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    SECRET,
    SERVICE,
    TEMPLATE,
    Resource,
)

Body = dict[str, Any]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
OWN, TEAM = "aim-system", "team"
USER = "ada"
PASSWORD = "countess-of-lovelace"
WRONG = "guessed-by-a-user"
WITHIN_S = 30.0
POLL_S = 0.05
SPEC = {
    "metric": "latency",
    "precision": "fp8",
    "gpuModel": "MI300X",
    "gpusPerReplica": 1,
    "tensorParallelism": 1,
}
RUNTIME = """
    import http.server, json, os, sys
    if "broken" in sys.argv:
        sys.exit("no such profile")
    if "dry-run" in sys.argv:
        metadata = {"engine": "lab", "gpu": "MI300X", "precision": "fp8", "gpu_count": 1}
        profile = {"model": "org/tiny", "metadata": metadata | {"metric": "latency"}}
        source = {"name": "org/tiny", "source": "s3://models/org/tiny", "size_gb": 1}
        sys.exit(print(json.dumps([{"profile": profile, "models": [source]}])))
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    http.server.HTTPServer((os.environ["AIMLAB_POD_IP"], 8000), Healthy).serve_forever()
"""


def labels(*recommended: Body) -> dict[str, str]:
    return {
        "com.amd.aim.model.canonicalName": "org/tiny",
        "com.amd.aim.model.recommendedDeployments": json.dumps(recommended),
    }


FITTING = labels({"gpuModel": "MI300X", "gpuCount": 1, "precision": "fp8", "metric": "latency"})


@dataclass
class Place:
    """A running control plane, a public and a private registry, and images that really run."""

    cluster: Cluster
    bus: Bus
    services: Children
    env: dict[str, str]
    """Discovery's."""
    public: Registry
    private: Registry
    folder: Path

    def runs(self, *images: str, broken: tuple[str, ...] = ()) -> None:
        """What the node can run from now on."""
        script = self.folder / "runtime.py"
        script.write_text(textwrap.dedent(RUNTIME))
        table = {image: ImageCommand((sys.executable, str(script))) for image in images}
        table |= {image: ImageCommand((sys.executable, str(script), "broken")) for image in broken}
        write_images(self.folder / "images.json", table)

    async def create(
        self, resource: Resource, namespace: str | None, name: str, **fields: Any
    ) -> None:
        metadata = {"name": name, **({} if namespace is None else {"namespace": namespace})}
        await self.cluster.create(
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": metadata,
                **fields,
            },
            resource=resource,
        )

    async def model(self, name: str, image: str) -> None:
        await self.create(MODEL, None, name, spec={"name": f"org/{name}", "image": image})

    async def image(self, name: str, image: str) -> None:
        await self.cluster.merge_patch(MODEL, None, name, {"spec": {"image": image}})

    async def template(self, name: str, **spec: Any) -> None:
        await self.create(TEMPLATE, TEAM, name, spec={"model": f"org/{name}", **SPEC, **spec})

    async def pull_secrets(self, *names: str) -> None:
        """The config names these from now on."""
        spec = {"images": {"imagePullSecrets": list(names)}}
        try:
            await self.cluster.merge_patch(CONFIG, OWN, "default", {"spec": spec})
        except NotFound:
            await self.create(CONFIG, OWN, "default", spec=spec)

    async def no_pull_secrets(self) -> None:
        with contextlib.suppress(NotFound):
            await self.cluster.delete(CONFIG, OWN, "default")

    async def retry(self, name: str, mark: str) -> None:
        await self.cluster.merge_patch(
            MODEL, None, name, {"metadata": {"annotations": {"aim.silogen.ai/retry": mark}}}
        )

    async def until(
        self, resource: Resource, namespace: str | None, name: str, holds: Callable[[Body], bool]
    ) -> Body:
        """The object once it is so. Fails with how it was at the end."""
        found: Body = {}
        try:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    with contextlib.suppress(NotFound):
                        found = await self.cluster.get(resource, namespace, name)
                        if holds(found):
                            return found
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(
                f"{resource.kind} {name} is still"
                f" {json.dumps(found.get('status', found), indent=1)}"
            ) from None

    async def until_deleted(self, resource: Resource, namespace: str, name: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(NotFound):
                while await self.cluster.get(resource, namespace, name):  # noqa: ASYNC110 (other processes make it true)
                    await asyncio.sleep(POLL_S)

    async def inspected(self, name: str, reason: str) -> str:
        """The message of ImageInspected once it has this reason."""
        body = await self.until(
            MODEL,
            None,
            name,
            lambda body: condition(body, "ImageInspected").get("reason") == reason,
        )
        assert condition(body, "Ready")["reason"] == reason
        return str(condition(body, "Ready")["message"])

    async def discovered(self, name: str, reason: str, message: str = "") -> Body:
        def holds(body: Body) -> bool:
            discovered_ = condition(body, "Discovered")
            return discovered_.get("reason") == reason and message in discovered_["message"]

        return await self.until(TEMPLATE, TEAM, name, holds)

    async def warned(self, resource: Resource, name: str, reason: str) -> str:
        """The note of a Warning Event."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for event in (await self.cluster.list(EVENT)).items:
                    about = event["regarding"]
                    if (about["kind"], about["name"], event["reason"], event["type"]) == (
                        resource.kind,
                        name,
                        reason,
                        "Warning",
                    ):
                        return str(event["note"])
                await asyncio.sleep(POLL_S)


def condition(body: Body, type_: str) -> Body:
    return next(
        (c for c in (body.get("status") or {}).get("conditions") or () if c["type"] == type_), {}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("catalogue")
    nats, kubeconfig = NatsServer(folder / "nats"), folder / "kubeconfig"
    await nats.start()
    try:
        async with (
            ApiServer() as server,
            Children(folder / "log") as children,
            Registry() as public,
            Registry({USER: PASSWORD}) as private,
        ):
            write_kubeconfig(kubeconfig, server.url)
            cluster = await Cluster.connect(str(kubeconfig))
            bus = await aimbus.connect(nats.url, name="test")
            env = {"AIM_NATS_URL": nats.url}
            for namespace in (OWN, TEAM):
                await cluster.create(
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                )
            accounts = await install(
                cluster, Api(server.url), [*bundled_crds(), *crds(), *rbac()], folder
            )
            discovery = env | {"KUBECONFIG": str(accounts[f"aim-{DISCOVERY}"])}
            place = Place(cluster, bus, children, discovery, public, private, folder)
            place.runs()
            where = ["--kubeconfig", str(kubeconfig)]
            node = ["--state", str(folder / "node"), "--images", str(folder / "images.json")]
            await children.start("node", [sys.executable, "-m", "aimlab.node", *where, *node])
            await children.start("kserve", [sys.executable, "-m", "aimlab.kserve", *where])
            await start_services(children, nats_url=nats.url, accounts=accounts)
            yield place
            await bus.close()
            await cluster.close()
    finally:
        await nats.kill()


async def test_what_an_image_recommends_is_reported(place: Place) -> None:
    place.public.put_image("aim/tiny", "1", FITTING, platforms=("linux/arm64", "linux/amd64"))
    await place.model("tiny", f"{place.public.host}/aim/tiny:1")
    assert "the image recommends MI300X × 1 latency fp8 (sha256:" in await place.inspected(
        "tiny", "Inspected"
    )


async def test_an_unrecommended_template_is_discovered_with_a_warning(
    place: Place,
) -> None:
    image = f"{place.public.host}/aim/large:1"
    place.public.put_image("aim/large", "1", labels({"gpuModel": "MI325X", "gpuCount": 8}))
    place.runs(image)
    await place.model("large", image)
    await place.inspected("large", "Inspected")
    await place.template("large")
    message = (
        "the image does not recommend MI300X × 1 latency fp8, but MI325X × 8; re-create the"
        " template for one of these, or leave it: discovery shows whether it runs"
    )
    assert await place.warned(TEMPLATE, "large", "UnsupportedProfile") == message
    await place.discovered("large", "ProfilesDiscovered", message)


async def test_of_two_entries_of_one_name_the_younger_fails(place: Place) -> None:
    await place.model("older", f"{place.public.host}/aim/none:1")
    await place.create(
        MODEL,
        None,
        "z-younger",
        spec={"name": "org/older", "image": f"{place.public.host}/aim/none:1"},
    )
    assert "AIMClusterModel older is older" in await place.warned(
        MODEL, "z-younger", "DuplicateName"
    )
    assert (
        condition(await place.cluster.get(MODEL, None, "z-younger"), "Ready")["status"] == "False"
    )


def pull_secret(place: Place, password: str) -> Body:
    auths = {
        "auths": {
            place.private.host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
        }
    }
    return {
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()},
    }


async def test_a_private_registry_opens_with_the_right_pull_secret(place: Place) -> None:
    await place.no_pull_secrets()
    place.private.put_image("aim/secret", "1", FITTING)
    await place.model("secret", f"{place.private.host}/aim/secret:1")
    assert "have none for it: add a Secret there" in await place.inspected("secret", "AuthError")
    await place.create(SECRET, OWN, "registries", **pull_secret(place, WRONG))
    await place.pull_secrets("registries")
    await place.until(
        MODEL,
        None,
        "secret",
        lambda body: (
            "were rejected: correct them" in condition(body, "ImageInspected").get("message", "")
        ),
    )
    await place.cluster.merge_patch(
        SECRET, OWN, "registries", {"data": pull_secret(place, PASSWORD)["data"]}
    )
    await place.retry("secret", "1")
    await place.inspected("secret", "Inspected")


async def test_a_pull_secret_that_no_role_names_is_reported(place: Place) -> None:
    """And read once the Role of discovery has its name."""
    place.private.put_image("aim/hidden", "1", FITTING)
    await place.create(SECRET, OWN, "harbor", **pull_secret(place, PASSWORD))
    await place.pull_secrets("harbor")
    await place.model("hidden", f"{place.private.host}/aim/hidden:1")
    message = await place.inspected("hidden", "AuthError")
    assert f"missing get on secrets named harbor in namespace {OWN}" in message
    assert "services.discovery.pullSecrets" in message
    (role,) = (
        body
        for body in rbac()
        if (body["kind"], body["metadata"]["name"]) == ("Role", f"aim-{DISCOVERY}")
    )
    (kind,) = (kind for kind in RBAC_KINDS if kind.kind == "Role")
    named = [
        rule | {"resourceNames": ["registries", "harbor"]}
        if "secrets" in rule["resources"]
        else rule
        for rule in role["rules"]
    ]
    await place.cluster.merge_patch(kind, OWN, f"aim-{DISCOVERY}", {"rules": named})
    await place.retry("hidden", "1")
    await place.inspected("hidden", "Inspected")


async def test_a_registry_that_was_away_is_asked_again(place: Place) -> None:
    place.public.put_image("aim/away", "1", FITTING)
    await place.public.stop()
    await place.model("away", f"{place.public.host}/aim/away:1")
    assert "try 1, next at " in await place.inspected("away", "RegistryUnreachable")
    await place.public.start()
    await place.inspected("away", "Inspected")


async def test_a_missing_image_blocks_its_template_until_pushed(place: Place) -> None:
    image = f"{place.public.host}/aim/late:1"
    place.runs(image)
    await place.model("late", image)
    assert "MANIFEST_UNKNOWN" in await place.inspected("late", "ImageNotFound")
    await place.template("late")
    await place.discovered(
        "late", "AwaitingDiscovery", f"image {image} of AIMClusterModel late is not found"
    )
    assert not (await place.cluster.list(JOB, TEAM)).items
    place.public.put_image("aim/late", "1", FITTING)
    await place.retry("late", "1")
    await place.inspected("late", "Inspected")
    await place.discovered("late", "ProfilesDiscovered", "found 1 model source")


async def test_a_changed_image_rolls_out_after_its_discovery(place: Place) -> None:
    first, broken, second = (
        f"{place.public.host}/aim/served:{tag}" for tag in ("1", "broken", "2")
    )
    for tag in ("1", "broken", "2"):
        place.public.put_image("aim/served", tag, FITTING)
    place.runs(first, second, broken=(broken,))
    await place.model("served", first)
    await place.template("served")
    await place.create(
        SERVICE,
        TEAM,
        "served",
        spec={"model": "org/served", "templateRef": "served", "cacheModel": False},
    )

    def running(body: Body) -> bool:
        return bool((body.get("status") or {}).get("status") == "Running")

    await place.until(SERVICE, TEAM, "served", running)
    before = await place.cluster.get(INFERENCE_SERVICE, TEAM, "served")
    assert image_of(before) == first

    await place.image("served", broken)
    failed = await place.discovered(
        "served",
        "ProfilesDiscovered",
        "using the previous discovery result; for the changed image: try 1, next at ",
    )
    assert (failed["status"]["status"], failed["status"]["modelSources"]) == (
        "Available",
        ["s3://models/org/tiny"],
    )
    assert "no such profile" in condition(failed, "Progressing")["message"]
    assert "no such profile" in await place.warned(TEMPLATE, "served", "DiscoveryFailed")
    after = await place.cluster.get(INFERENCE_SERVICE, TEAM, "served")
    assert (after["spec"], after["metadata"]["generation"]) == (
        before["spec"],
        before["metadata"]["generation"],
    )
    assert running(await place.cluster.get(SERVICE, TEAM, "served"))

    await place.image("served", second)
    await place.until(INFERENCE_SERVICE, TEAM, "served", lambda body: image_of(body) == second)
    await place.discovered("served", "ProfilesDiscovered", "found 1 model source")
    await place.until(SERVICE, TEAM, "served", running)


def image_of(inference_service: Body) -> str:
    return str(inference_service["spec"]["predictor"]["containers"][0]["image"])


async def test_a_new_process_asks_no_registry_for_what_is_known(place: Place) -> None:
    place.public.put_image("aim/known", "1", FITTING)
    await place.model("known", f"{place.public.host}/aim/known:1")
    await place.inspected("known", "Inspected")
    known = {
        body["spec"]["image"].rpartition("/")[2].partition(":")[0]
        for body in (await place.cluster.list(MODEL)).items
        if condition(body, "ImageInspected")["status"] == "True"
    }
    requests_before = len(place.public.requests)
    await place.services.stop(DISCOVERY)
    port = free_ports(1)[0]
    process = await place.services.start(
        DISCOVERY,
        [str(Path(sys.executable).with_name(f"aim-{DISCOVERY}"))],
        env=place.env | {"AIM_HTTP_PORT": str(port)},
    )
    await until_answers(process, f"http://127.0.0.1:{port}/readyz", "aim-discovery")
    place.public.put_image("aim/marker", "1", FITTING)
    await place.model("z-marker", f"{place.public.host}/aim/marker:1")
    await place.inspected("z-marker", "Inspected")
    requested = {request.path.split("/")[3] for request in place.public.requests[requests_before:]}
    assert "known" in known
    assert requested & {*known, "marker"} == {"marker"}


async def test_the_stored_facts_of_an_entry_go_with_it(place: Place) -> None:
    image = f"{place.public.host}/aim/deleted:1"
    place.public.put_image("aim/deleted", "1", FITTING)
    await place.model("deleted", image)
    await place.inspected("deleted", "Inspected")
    spec = {"name": "org/deleted", "image": f"{place.public.host}/aim/none:1"}
    await place.create(MODEL, None, "z-deleted", spec=spec)
    await place.warned(MODEL, "z-deleted", "DuplicateName")
    config_map = await place.cluster.get(CONFIG_MAP, OWN, image_config_map("deleted"))
    assert config_map["data"]["image"] == image
    await place.cluster.delete(MODEL, None, "deleted")
    await place.until_deleted(CONFIG_MAP, OWN, image_config_map("deleted"))
    assert "is not in its registry" in await place.inspected("z-deleted", "ImageNotFound"), (
        "the name is free, so the younger counts"
    )


async def test_no_password_is_on_the_bus_in_a_log_or_in_a_status(place: Place) -> None:
    secrets = [
        text.encode()
        for word in (PASSWORD, WRONG)
        for text in (word, base64.b64encode(f"{USER}:{word}".encode()).decode())
    ]
    texts = {str(log): log.read_bytes() for log in (place.folder / "log").glob("*.log")}
    texts |= {"models": json.dumps((await place.cluster.list(MODEL)).items).encode()}
    async with contextlib.aclosing(aimbus.read_log(place.bus, [subjects.ALL])) as events:
        texts |= {
            str(event.seq): encode(event.message)
            async for event in events
            if isinstance(event, aimbus.Event)
        }
    assert [
        where for where, text in texts.items() if any(secret in text for secret in secrets)
    ] == []
