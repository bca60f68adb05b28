"""With any input of people, images, gateways and kubelets, rendered objects have valid names and
stay in their namespace, and messages are printable."""

import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_cacher import plan as cacher
from aim_cacher.job_options import JobOptions
from aim_deployer import gpus
from aim_deployer import plan as deployer
from aim_discovery import plan as discovery
from aim_discovery.dry_run_output import LOG, digest_log
from aim_router import plan as router
from aim_statuswriter import plan as statuswriter
from aim_statuswriter.actions import SendEvent, WriteStatus
from aim_statuswriter.render import event as event_body
from aimcontroller import testing
from aimcontroller.action import ApplyObject
from aimcontroller.plan import Plan
from aimcontroller.projection import Observation, Projection
from aimcontroller.testing import NOW, Body
from aimlab.apiserver.names import bad_annotations, bad_labels, bad_name
from aimlab.node.environment import expand
from aimschema import labels, names, reasons, subjects
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    CONFIG_MAP,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    MODEL,
    POD,
    ROUTE,
    SERVICE,
    TEMPLATE,
    Key,
    key_of,
)

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyz0123456789"
HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "[bold]loud[/] [link=http://evil]x[/link] :skull:",
    "<script>alert(1)</script>",
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/../../b",
    "$(HF_TOKEN) $$(HF_TOKEN) `id` $(id); rm -rf /",
    "line\nbreak\r\n\ttab",
    "a\u202eb\u2066c",
    "\x00\x7f",
    "*.>.$JS.API",
    "ünïcödé 模型 🤖",
    "x" * 5000,
]
TEXT = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
)
SOURCE = st.one_of(
    st.sampled_from(
        [
            "hf://org/model",
            "s3://bucket/org/model.v1",
            "s3://bucket/a/b/../c",
            "hf://../..",
            "hf://org/mo@v/../x",
        ]
    ),
    st.sampled_from(["s3://b/x/y\x1b[2J", "hf://org/$(HF_TOKEN)", "hf://org/a$$(HF_TOKEN)"]),
    st.from_regex(r"(hf|s3)://[^\s/]\S{0,60}", fullmatch=True),
)


def label(most: int) -> st.SearchStrategy[str]:
    """An RFC 1123 label, often as long as it may be."""
    return st.tuples(
        st.sampled_from([1, 2, most - 1, most]), st.text(ALPHANUMERIC + "-", max_size=most)
    ).map(lambda drawn: ("a" + drawn[1] + "a" * most)[: drawn[0] - 1] + "z")


def subdomain(most: int) -> st.SearchStrategy[str]:
    return st.lists(label(min(63, most)), min_size=1, max_size=8).map(
        lambda parts: ".".join(parts)[:most].rstrip("-.")
    )


@dataclass(frozen=True)
class Story:
    """The names that the objects of one world have in common."""

    model: str
    template: str
    service: str
    cache: str
    source: str
    gateway: Body


@st.composite
def stories(draw: st.DrawFn) -> Story:
    return Story(
        model=draw(TEXT),
        template=draw(subdomain(253)),
        service=draw(st.just("s") | label(48).map(lambda name: "s" + name[1:])),
        cache=draw(subdomain(54)),
        source=draw(SOURCE),
        gateway={"name": draw(TEXT)[:253], "namespace": draw(st.none() | label(63))},
    )


@st.composite
def worlds(draw: st.DrawFn) -> list[Body]:
    """A service with all it is made from, all of it under way or failing, every free text
    hostile."""
    place, story = draw(label(63)), draw(stories())
    written_by_others = [
        *pods(draw, story),
        *volumes(draw, story),
        *runtime(draw, story),
        discovery_result(draw, story),
    ]
    kinds = sorted({body["kind"] for body in written_by_others})
    absent = draw(st.sets(st.sampled_from(kinds), max_size=2)) | draw(
        st.sampled_from([set(), {JOB.kind}])
    )
    bodies = written_by_users(draw, story)
    bodies += [body for body in written_by_others if body["kind"] not in absent]
    for body in bodies:
        if "namespace" in body["metadata"]:
            body["metadata"]["namespace"] = place
    return bodies


def written_by_users(draw: st.DrawFn, story: Story) -> list[Body]:
    notes = {labels.ANNOTATION_ROUTE_TIMEOUT: draw(TEXT)} if draw(st.booleans()) else {}
    notes["example.com/note"] = draw(TEXT)
    workload_ids = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
    marks = {labels.WORKLOAD_ID: draw(workload_ids)} if draw(st.booleans()) else {}
    config = {
        "routing": {"gateway": story.gateway},
        "images": {"imagePullSecrets": [draw(TEXT)]},
        "cacheStorageClassName": draw(st.sampled_from([None, "fast"]) | TEXT),
        "credentials": {"huggingFaceToken": {"name": draw(TEXT), "key": draw(TEXT)}},
    }
    template = {
        "model": story.model,
        "metric": "latency",
        "precision": "auto",
        "gpusPerReplica": 1,
        "gpuModel": "MI300X",
        "tensorParallelism": 1,
        "warmCache": draw(st.booleans()),
    }
    service = {
        "model": story.model,
        "templateRef": story.template,
        "configRef": "default",
        "replicas": 1,
        "cacheModel": draw(st.booleans()),
    }
    env = [{"name": draw(TEXT), "value": draw(TEXT)}]
    cache = {"sourceUri": story.source, "size": "1Gi", "env": env}
    status = {"status": draw(st.sampled_from(["Available", "Progressing", "Failed"]))}
    return [
        testing.cr(MODEL.kind, "m", {"name": story.model, "image": draw(TEXT)}),
        testing.cr(CONFIG.kind, "default", config),
        testing.cr(TEMPLATE.kind, story.template, template, annotations=notes),
        testing.cr(SERVICE.kind, story.service, service, labels=marks, annotations=notes),
        testing.cr(CACHE.kind, story.cache, cache, annotations=notes, status=status),
    ]


def pods(draw: st.DrawFn, story: Story) -> list[Body]:
    """The download Job with its pod, and a pod of the runtime."""
    ended = {"exitCode": draw(st.sampled_from([1, 10, 11, 20, 137])), "message": draw(TEXT)}
    waiting = {"reason": draw(TEXT), "message": draw(TEXT)}
    state: Body = draw(st.sampled_from([{"waiting": waiting}, {"terminated": ended}]))
    job = names.cache_download_job(story.cache)
    phase = draw(st.sampled_from(["active", "failed"]))
    of_runtime = {labels.KSERVE_ISVC_LABEL: story.service}
    return [
        testing.job(job, (CACHE.kind, story.cache), phase),
        testing.pod("p", (JOB.kind, job), "downloader", state),
        testing.pod("q", (JOB.kind, "none"), "kserve-container", state, labels=of_runtime),
    ]


def volumes(draw: st.DrawFn, story: Story) -> list[Body]:
    phase = draw(st.sampled_from(["Pending", "Bound", "Bound", "Lost"]))
    claim = testing.claim(names.cache_claim(story.cache), (CACHE.kind, story.cache), phase)
    return [claim, testing.storage_class()]


def runtime(draw: st.DrawFn, story: Story) -> list[Body]:
    texts = {"reason": draw(TEXT), "message": draw(TEXT)}
    unready = {
        "conditions": [{"type": "Ready", "status": "False", **texts}],
        "modelStatus": {"transitionStatus": "InvalidSpec", "lastFailureInfo": texts},
    }
    rejected = {"type": "Accepted", "status": "False", **texts}
    parents = {"parents": [{"parentRef": story.gateway, "conditions": [rejected]}]}
    listeners = {"listeners": [{"hostname": draw(TEXT)}]}
    addresses = {"addresses": [{"value": draw(TEXT)}]}
    name, owner = story.service, (SERVICE.kind, story.service)
    return [
        testing.obj(INFERENCE_SERVICE.kind, name, owner=owner, spec={}, status=unready),
        testing.obj(ROUTE.kind, name, owner=owner, spec={}, status=parents),
        testing.obj(GATEWAY.kind, "gw", spec=listeners, status=addresses),
    ]


def discovery_result(draw: st.DrawFn, story: Story) -> Body:
    profile = {
        "model": draw(TEXT),
        "metadata": {"engine": draw(TEXT)},
        "env_vars": {draw(TEXT): draw(TEXT)},
        "engine_args": {draw(TEXT): draw(TEXT)},
    }
    models = [{"name": draw(TEXT), "source": story.source}]
    answer = json.dumps({"profile": profile, "models": models})
    data = {"result.json": answer, "image": draw(TEXT)}
    name = names.discovery_config_map(story.template)
    return testing.config_map(name, (TEMPLATE.kind, story.template), data)


PLANNERS: dict[str, tuple[Callable[[Projection, Key], Plan], tuple[str, ...]]] = {
    reasons.DISCOVERY: (
        lambda state, key: discovery.plan(state, key, NOW, namespace="aim-system"),
        (MODEL.kind, TEMPLATE.kind),
    ),
    reasons.CACHER: (
        lambda state, key: cacher.plan(state, key, NOW, options=JobOptions("d:1")),
        (TEMPLATE.kind, CACHE.kind),
    ),
    reasons.DEPLOYER: (
        lambda state, key: deployer.plan(state, key, NOW, gpus=gpus.load(None)),
        (SERVICE.kind,),
    ),
    reasons.ROUTER: (lambda state, key: router.plan(state, key, NOW), (SERVICE.kind,)),
}
LONGEST = {JOB.kind: 63, INFERENCE_SERVICE.kind: 48, ROUTE.kind: 48}


def wrong(body: Body, about: Key) -> list[str]:
    """What is wrong with an object that is to be applied, in words."""
    metadata, key = body["metadata"], (body["kind"], body["metadata"]["name"])
    causes = [
        *bad_name(metadata["name"], body["kind"], path_names=False),
        *bad_labels(metadata.get("labels")),
        *bad_annotations(metadata.get("annotations")),
    ]
    found = [f"{key}: {cause.field}: {cause.message}" for cause in causes]
    if len(metadata["name"]) > LONGEST.get(body["kind"], 253):
        found.append(f"{key} has a name too long")
    if metadata["namespace"] != about.namespace:
        found.append(f"{key} is in another namespace")
    if metadata.get("ownerReferences", [{"name": about.name}])[0]["name"] != about.name:
        found.append(f"{key} belongs to something else")
    if subjects.parse(
        subjects.of_object(Key(body["kind"], metadata["namespace"], metadata["name"]))
    ).key != Key(*key[:1], metadata["namespace"], key[1]):
        found.append(f"{key} is another key on the bus")
    return (
        found
        + [
            f"{key}: {problem}"
            for container in _containers(body)
            for problem in _wrong_container(container)
        ]
        + _wrong_paths(body)
    )


def _containers(body: Body) -> list[Body]:
    spec = body.get("spec") or {}
    pod = (
        spec.get("predictor")
        or ((spec.get("template") or {}).get("spec") if body["kind"] == JOB.kind else None)
        or {}
    )
    return list(pod.get("containers") or ())


def _wrong_container(container: Body) -> list[str]:
    found = []
    for mount in container.get("volumeMounts") or ():
        path = mount["mountPath"]
        inside = path.startswith(f"{labels.CACHE_PATH}/") and len(path.split("/")) == 5
        if posixpath.normpath(path) != path or not (inside or path in {"/dev/shm", "/cache"}):  # noqa: S108
            found.append(f"mounts at {path!r}")
    variables = {"HF_TOKEN": "the-secret"}
    found += [
        f"argument {arg!r} reveals a secret"
        for arg in container.get("args") or ()
        if "the-secret" in expand(arg, variables)
    ]
    if container.get("command"):
        found.append("has a command")
    if len({variable["name"] for variable in container.get("env") or ()}) < len(
        container.get("env") or ()
    ):
        found.append("has a variable twice")
    return found


def _wrong_paths(body: Body) -> list[str]:
    """A route serves what is below its namespace and its id, one segment each."""
    prefixes = [
        match["path"]["value"]
        for rule in (body.get("spec") or {}).get("rules") or ()
        for match in rule["matches"]
    ]
    own = re.compile(
        rf"/{re.escape(body['metadata']['namespace'])}/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
    )
    return [
        f"prefix {prefix!r}"
        for prefix in prefixes
        if own.fullmatch(prefix) is None or "." in prefix.split("/")
    ]


def unprintable(plan: Plan) -> list[str]:
    """What could not be shown to a person as it is, or is not as the API wants conditions."""
    conditions = [condition for report in plan.reports for condition in report.conditions]
    return [
        f"{c.type}: {c.reason}: {c.message!r}"
        for c in conditions
        if not c.message.isprintable()
        or len(c.message) > 1024
        or not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", c.reason)
    ]


many = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)


@pytest.mark.parametrize("service", PLANNERS)
@given(bodies=worlds(), is_rejected=st.booleans(), log=TEXT)
@many
def test_hostile_input_makes_valid_objects_and_clean_messages(
    service: str, bodies: list[Body], is_rejected: bool, log: str
) -> None:
    planner, kinds = PLANNERS[service]
    keys = [key_of(body) for body in bodies if body["kind"] in kinds]
    rejections = (
        [testing.rejected(key, Key(CLAIM.kind, key.namespace, "x"), log) for key in keys]
        if is_rejected
        else []
    )
    log_results = [
        Observation(key_of(body), LOG, digest_log(log.encode(errors="replace")))
        for body in bodies
        if body["kind"] in {JOB.kind, POD.kind}
    ]
    state = testing.projection(*bodies, observations=[*rejections, *log_results])
    for key in keys:
        plan = planner(state, key)
        assert [
            problem
            for action in plan.actions
            if isinstance(action, ApplyObject)
            for problem in wrong(action.body, key)
        ] == []
        assert unprintable(plan) == []
        assert {report.key.namespace for report in plan.reports} <= {key.namespace}
        assert [
            report.key
            for report in plan.reports
            if subjects.parse(subjects.of_report(report.key, service)).key != report.key
        ] == []


@given(name=subdomain(253))
@many
def test_the_answer_of_any_template_has_a_valid_name_of_its_own(name: str) -> None:
    own_name = names.discovery_config_map(name)
    assert bad_name(own_name, CONFIG_MAP.kind, path_names=False) == []
    other = name[:-1] + ("y" if name[-1] != "y" else "x")
    assert names.discovery_config_map(other) != own_name


@given(bodies=worlds())
@many
def test_hostile_annotations_and_events_can_be_printed(
    bodies: list[Body],
) -> None:
    state = testing.projection(*bodies)
    for service, (planner, kinds) in PLANNERS.items():
        for key in (key_of(body) for body in bodies if body["kind"] in kinds):
            reports = [
                report.message(service)
                for report in planner(state, key).reports
                if report.key == key
            ]
            for action in statuswriter.plan(
                testing.projection(*bodies, reports=reports), key, NOW
            ).actions:
                match action:
                    case WriteStatus(status=status):
                        assert [
                            c
                            for c in status["conditions"]
                            if not c["message"].isprintable() or len(c["message"]) > 1024
                        ] == []
                    case SendEvent():
                        event = event_body(action, NOW, "0" * 10, "i")
                        assert event["metadata"]["namespace"] == (key.namespace or "default")
                        assert bad_name(event["metadata"]["name"], "Event", path_names=False) == []
                        assert len(str(event["note"]).encode()) <= 1024
                        assert str(event["note"]).isprintable()
