"""Every way in which a source or its credentials can be right or wrong, and what a user sees of it
on the ModelCache.

The tests of this file share one laptop cluster with two S3 servers and a hub, on which all cases
have been reported. docs/reference/sources.md has the cases as a table and is compared with them;
AIM_WRITE_GOLDEN=1 writes it.
"""

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from aimcontroller.testing import golden_file
from aimkube import Modified, Snapshot
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import EXAMPLE_ENDPOINT, write_manifests
from aimlab.cli.secret_scan import leaks
from aimlab.kinds import SECRET
from aimlab.lab import HUB_TOKEN, S3_KEYS
from aimlab.sources.hub import CUT, Hub, InjectedError, Model
from aimlab.sources.seaweed import Keys, S3Server, seaweed
from aimlab.testing.bus_contract import flaws_of_log
from aimschema import labels, reasons, subjects
from aimschema.quantities import GI
from aimschema.resources import CACHE, CLAIM, CONFIG, Key, Resource

Body = dict[str, Any]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
NAMESPACE = "sources"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sources.md"
TEAM = Keys("team", "team-secret")
READER = "hf_reader_9f2c"
OTHER = "hf_other_41ab"
UNKNOWN = "hf_unknown_77de"
WRONG_KEY = "wrong-secret-5e1d"
PULL = "registry-password-c3"
SECRET_VALUES = (
    READER,
    OTHER,
    UNKNOWN,
    WRONG_KEY,
    PULL,
    HUB_TOKEN,
    S3_KEYS.secret_key,
    TEAM.secret_key,
)
AWAY = "http://127.0.0.1:9"
"""A closed port: that of the discard protocol."""
LITERAL = "literal-value-b7"
"""Not a Secret's: it is in the cache's spec for all to see, and need not be repeated."""
WITHIN_S = 90.0


# --- the cases


@dataclass(frozen=True)
class Case:
    """One of source_cases.yaml; see there."""

    name: str
    what: str
    source: str
    sees: tuple[str, ...]
    do: str = ""
    config: str = ""
    condition: str = reasons.FILLED
    size: str | None = "1Gi"
    spec: Body = field(default_factory=dict)

    def body(self) -> Body:
        annotations = {labels.ANNOTATION_CONFIG: self.config} if self.config else {}
        spec = (
            {"sourceUri": self.source}
            | ({} if self.size is None else {"size": self.size})
            | self.spec
        )
        return made(CACHE, self.name, spec=spec, annotations=annotations)


WARM = (reasons.WARM,)
CASES_BY_PART = {
    part: [Case(**case | {"sees": tuple(case["sees"])}) for case in cases]
    for part, cases in yaml.safe_load(
        Path(__file__).with_name("source_cases.yaml").read_text()
    ).items()
}
CASES = {case.name: case for cases in CASES_BY_PART.values() for case in cases}


# --- what the cases meet


def made(
    resource: Resource, name: str, *, annotations: dict[str, str] | None = None, **fields: Any
) -> Body:
    metadata = (
        {"name": name}
        | ({"namespace": NAMESPACE} if resource.namespaced else {})
        | ({"annotations": annotations} if annotations else {})
    )
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        **fields,
    }


def fill_hub(hub: Hub) -> None:
    files = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": bytes(range(256)) * 400}
    for name in (
        "public",
        "public-2",
        "gated",
        "gated-1",
        "gated-2",
        "private-1",
        "private-2",
        "private-3",
        "old-name",
        "busy",
        "shaky",
    ):
        hub.put_model(f"org/{name}", files, tags=["v1"])
    for name in ("down", "wrong", "huge", "waits-1", "waits-2", "waits-3"):
        hub.put_model(f"org/{name}", files)
    hub.put_model("org/public", files | {"README.md": b"a later commit"})
    for name in ("gated", "gated-1", "gated-2"):
        hub.restrict(f"org/{name}", gated=True, readers=[READER])
    for name in ("private-1", "private-2", "private-3"):
        hub.restrict(f"org/{name}", private=True, readers=[READER])
    hub.tokens.add(OTHER)
    hub.rename("org/old-name", "org/new-name")
    hub.models["org/busy"].errors = [InjectedError(429, retry_after_s=1)] * 3
    hub.models["org/shaky"].faults, hub.models["org/shaky"].delay_s = [CUT] * 2, 0.5
    hub.models["org/down"].errors = [InjectedError(503)] * 1000
    hub.models["org/wrong"].files["model.safetensors"].sha256 = "0" * 64
    hub.models["org/huge"].files["model.safetensors"].size_bytes = 1 << 50


async def fill_stores(stack: Stack, team: S3Server, folder: Path) -> None:
    for prefix in ("org/model", "org/model-2"):
        await stack.lab.s3.put_folder("models", prefix, folder)
    await team.put_folder("models", "team/model", folder)


def token(secret: str) -> Body:
    return {"credentials": {"huggingFaceToken": {"name": secret, "key": "token"}}}


def store(secret: str, endpoint_url: str) -> Body:
    keys = {
        "accessKeyId": {"name": secret, "key": "id"},
        "secretAccessKey": {"name": secret, "key": "secret"},
    }
    return {"endpointUrl": endpoint_url} | keys


def manifests_of(stack: Stack, team: S3Server) -> list[Body]:
    """Secrets, and the configs that refer to them."""
    lab = stack.lab.s3
    tokens = {"hf-reader": READER, "hf-other": OTHER, "hf-unknown": UNKNOWN}
    keys = {"lab": lab.admin, "team": TEAM, "typo": Keys(lab.admin.access_key, WRONG_KEY)}
    pull = {
        "auths": {
            "registry.example.org": {
                "auth": base64.b64encode(f"puller:{PULL}".encode()).decode(),
                "password": PULL,
            }
        }
    }
    configs = {name: token(name) for name in tokens} | {
        "no-secret": token("forgotten"),
        "store-away": {"credentials": {"s3": [store("lab", AWAY)]}},
        "two-stores": {
            "credentials": {
                "s3": [store("team", team.endpoint_url), store("lab", lab.endpoint_url)]
            }
        },
        "wrong-keys": {
            "credentials": {"s3": [store("typo", lab.endpoint_url)]},
            "images": {"imagePullSecrets": ["pull"]},
        },
    }
    return [
        made(
            SECRET,
            "pull",
            type="kubernetes.io/dockerconfigjson",
            stringData={".dockerconfigjson": json.dumps(pull)},
        ),
        *(made(SECRET, name, stringData={"token": value}) for name, value in tokens.items()),
        *(
            made(SECRET, name, stringData={"id": pair.access_key, "secret": pair.secret_key})
            for name, pair in keys.items()
        ),
        *(made(CONFIG, name, spec=spec) for name, spec in configs.items()),
    ]


# --- running and watching them


@dataclass
class Run:
    """`history` has every version of every cache of the namespace, as the API server returned
    them."""

    stack: Stack
    team: S3Server
    history: dict[str, list[Body]] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def watch(self) -> None:
        async with contextlib.aclosing(self.stack.lab.cluster.list_and_watch(CACHE)) as events:
            async for event in events:
                bodies = event.items if isinstance(event, Snapshot) else ()
                if isinstance(event, Modified):
                    bodies = (event.body,)
                for body in bodies:
                    self.history.setdefault(body["metadata"]["name"], []).append(body)
                async with self.news:
                    self.news.notify_all()

    async def first(self, name: str, holds: Callable[[Body], bool], *, after: int = 0) -> Body:
        """The first version of a cache, not counting so many, for which it holds. Raises
        AssertionError with the last one."""
        try:
            async with asyncio.timeout(WITHIN_S), self.news:
                while True:
                    for body in self.history.get(name, [])[after:]:
                        if holds(body):
                            return body
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{name} is still {self.history.get(name, [{}])[-1].get('status')}"
            ) from None

    async def is_warm_after(self, name: str, change: Awaitable[object]) -> Body:
        """Make the change and wait until the cache is filled."""
        versions_before = len(self.history[name])
        await change
        return await self.first(
            name,
            lambda body: condition_of(body, reasons.FILLED).get("reason") == reasons.WARM,
            after=versions_before,
        )

    async def patch(self, resource: Resource, name: str, change: Body) -> None:
        await self.stack.lab.cluster.merge_patch(resource, NAMESPACE, name, change)

    async def retry(self, name: str) -> None:
        """As the page says."""
        command = next(
            line
            for line in PAGE.read_text().splitlines()
            if line.strip().startswith("kubectl annotate")
        )
        command_line = (
            command.replace("NAMESPACE", NAMESPACE)
            .replace("NAME", name)
            .replace("$(date +%s)", "1")
            .split()
        )
        kubectl = Path(sys.executable).with_name(command_line[0])
        process = await asyncio.create_subprocess_exec(
            kubectl, *command_line[1:], env=kubectl_env(self.stack.lab)
        )
        assert await process.wait() == 0


def condition_of(body: Body, type_: str) -> Body:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == type_), {})


@asynccontextmanager
async def cluster_with_two_stores(folder: Path) -> AsyncIterator[Run]:
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as starting:
            running = starting.create_task(
                stack.enter_async_context(control_plane_on_laptop(folder))
            )
            team = starting.create_task(
                stack.enter_async_context(seaweed(folder / "team-store", TEAM))
            )
        yield Run(running.result(), team.result())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """All cases, created at once. A case that is never reported fails in its own test."""
    folder = tmp_path_factory.mktemp("sources")
    async with cluster_with_two_stores(folder / "lab") as run:
        fill_hub(run.stack.lab.hub)
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 400)
        await fill_stores(run.stack, run.team, folder / "model")
        cluster = run.stack.lab.cluster
        await cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )
        watching = asyncio.create_task(run.watch())
        for body in (*manifests_of(run.stack, run.team), *(case.body() for case in CASES.values())):
            await cluster.create(body, resource=SECRET if body["kind"] == SECRET.kind else None)
        await asyncio.gather(
            *(outcome(run, case) for case in CASES.values()), return_exceptions=True
        )
        yield run
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def outcome(run: Run, case: Case) -> Body:
    """The cache once it says what is expected."""

    def holds(body: Body) -> bool:
        condition = condition_of(body, case.condition)
        return condition.get("reason") == case.sees[0] and all(
            word in condition["message"] for word in case.sees[1:]
        )

    return await run.first(case.name, holds)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
async def test_a_user_sees(run: Run, case: Case) -> None:
    body = await outcome(run, case)
    condition, ready = condition_of(body, case.condition), condition_of(body, reasons.READY)
    assert condition["status"] == ("True" if case.sees == WARM else "False")
    if case.condition == reasons.FILLED:
        assert (ready["status"], ready["reason"], ready["message"]) == (
            condition["status"],
            condition["reason"],
            condition["message"],
        )


async def test_what_was_pinned_is_in_the_status(run: Run) -> None:
    public: Model = run.stack.lab.hub.models["org/public"]
    revisions = {
        name: (await outcome(run, CASES[name]))["status"]["revision"] for name in ("public", "tag")
    }
    assert revisions == {"public": public.head, "tag": public.tags["v1"]}


async def test_a_volume_of_unknown_size_gets_the_probed_size(run: Run) -> None:
    claim = await run.stack.lab.cluster.get(CLAIM, NAMESPACE, "public-cache")
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert (await outcome(run, CASES["public"]))["status"]["sizeBytes"] < GI


async def test_the_page_has_the_observed_results(run: Run) -> None:
    bodies = {case.name: await outcome(run, case) for case in CASES.values()}
    head, begin, rest = PAGE.read_text().partition("<!-- cases -->\n")
    end = rest.partition("<!-- end of cases -->")
    golden_file(PAGE, head + begin + table(run, bodies) + "".join(end[1:]))


# --- recovery; tests/fault_catalogue has config, Secret, storage class and an older cache


async def test_a_retry_is_made_at_once(run: Run) -> None:
    run.stack.lab.hub.models["org/down"].errors.clear()
    await run.is_warm_after("hub-down", run.retry("hub-down"))


async def test_accepted_terms_count_with_the_next_try(run: Run) -> None:
    run.stack.lab.hub.models["org/gated-2"].readers.add(OTHER)
    await run.is_warm_after("gated-other", run.retry("gated-other"))


async def test_edited_credentials_are_tried_at_once(run: Run) -> None:
    right = {"spec": {"credentials": {"s3": [store("lab", run.stack.lab.s3.endpoint_url)]}}}
    await run.is_warm_after("wrong-keys", run.patch(CONFIG, "wrong-keys", right))


async def test_another_secret_replaces_a_missing_one_of_a_waiting_pod(
    run: Run,
) -> None:
    await run.is_warm_after(
        "no-secret", run.patch(CONFIG, "no-secret", {"spec": token("hf-reader")})
    )


@pytest.mark.parametrize(
    ("example", "namespace"), [("huggingface", "from-hub"), ("two-stores", "two-stores")]
)
async def test_the_examples_fill_their_caches(run: Run, example: str, namespace: str) -> None:
    await apply_example(run, example)
    filled = await run.first(
        "minilm",
        lambda body: (
            in_namespace(body, namespace)
            and condition_of(body, reasons.FILLED).get("reason") == reasons.WARM
        ),
    )
    assert filled["status"]["sizeBytes"] == run.stack.quickstart.size_bytes


async def apply_example(run: Run, example: str) -> None:
    addresses = {
        EXAMPLE_ENDPOINT: run.stack.lab.s3.endpoint_url,
        "http://127.0.0.1:8334": run.team.endpoint_url,
    }
    folder = write_manifests(run.stack.lab, example, addresses)
    for manifest in sorted(folder.iterdir()):
        for body in yaml.safe_load_all(manifest.read_text()):
            await run.stack.lab.cluster.apply(
                body, manager="kubectl", resource=SECRET if body["kind"] == SECRET.kind else None
            )


async def test_no_secret_value_is_in_any_event_log_or_status(run: Run) -> None:
    await apply_example(run, "huggingface")
    held = json.dumps(
        [body.get("data") for body in (await run.stack.lab.cluster.list(SECRET)).items]
    )
    assert [
        value
        for value in SECRET_VALUES
        if value != PULL and base64.b64encode(value.encode()).decode() not in held
    ] == []
    assert await leaks(run.stack, SECRET_VALUES) == []


async def test_every_message_is_what_its_sender_and_its_schema_promise(run: Run) -> None:
    count, flaws = await flaws_of_log(run.stack.nats_url)
    assert count > 100
    assert flaws == []


async def test_literal_variables_stay_out_of_job_and_pod_events(
    run: Run,
) -> None:
    places = await leaks(run.stack, [LITERAL])
    assert "ModelCache own-variables" in places
    events = {place.partition(" on ")[2] for place in places if place.startswith("event ")}
    assert events == {subjects.of_object(Key(CACHE.kind, NAMESPACE, "own-variables"))}


# --- the page


def in_namespace(body: Body, namespace: str) -> bool:
    return bool(body["metadata"]["namespace"] == namespace)


def table(run: Run, bodies: dict[str, Body]) -> str:
    """The conditions of each cache, without the parts that differ from run to run."""
    lines = []
    for part, cases in CASES_BY_PART.items():
        lines += [
            "",
            f"### {part}",
            "",
            "| case | status | condition | message | what to do |",
            "|---|---|---|---|---|",
        ]
        for case in cases:
            body = bodies[case.name]
            condition = condition_of(body, case.condition)
            cells = (
                case.what,
                body["status"]["status"],
                f"{case.condition}={condition['status']}, {condition['reason']}",
                condition["message"],
                case.do,
            )
            lines.append(
                "| "
                + " | ".join(run_independent(run, cell).replace("|", "\\|") for cell in cells)
                + " |"
            )
    return "\n".join([*lines[1:], "", ""])


def run_independent(run: Run, text: str) -> str:
    lab = run.stack.lab
    for actual, written in (
        (lab.hub.endpoint, "https://huggingface.co"),
        (lab.s3.endpoint_url, "https://s3.example.org"),
        (run.team.endpoint_url, "https://team.example.org"),
        (AWAY, "https://away.example.org"),
    ):
        text = text.replace(actual, written)
    for pattern, instead in (
        (rf"{lab.state_dir}\S*/root/cache", "/cache"),  # a pod without mounts of its own
        (r"next try at \S+", "next try at TIME"),
        (r"\b[0-9a-f]{40}\b", "COMMIT"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"\d+ bytes still needed, \d+ free", "N bytes still needed, N free"),
        (r"-download-[a-z0-9]{5}\b", "-download-ID"),
        (r"try \d+:", "try N:"),
    ):
        text = re.sub(pattern, instead, text)
    return text
