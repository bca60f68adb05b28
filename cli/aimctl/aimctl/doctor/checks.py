"""What follows from the facts for the control plane itself: versions, kinds, services,
permissions, bus. Pure."""

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from aimbus import BusStats, StreamStats
from aimctl.component_registry import ALL_IN_ONE, SERVICES
from aimctl.doctor.network import api_server, pod_security
from aimctl.doctor.requirements import gateways, nodes, registries, storage
from aimctl.doctor.snapshot import Body, Checked, Facts, Finding, Level, Unknown, name_of
from aimschema.crds import crd
from aimschema.kinds import KINDS
from aimschema.messages import parse_timestamp
from aimschema.quantities import human
from aimschema.resources import (
    AIM_KINDS,
    DEPLOYMENT,
    GATEWAY,
    INFERENCE_SERVICE,
    LEASE,
    NAMESPACE,
    ROUTE,
    SERVICE_ACCOUNT,
    Resource,
    qualified_name,
)

OLDEST_KUBERNETES = (1, 29)
OLDEST_KSERVE = (0, 16)
OLDEST = ".".join(map(str, OLDEST_KSERVE))
"""Older ones call the mode Standard RawDeployment, and run a mode that they do not know in the
cluster's default one, often Serverless."""
BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version"
INSTALL_GATEWAY_API = (
    "kubectl apply -f"
    " https://github.com/kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml"
)
INSTALL_KSERVE = "install KServe in Standard mode (its charts kserve-crd and kserve)"
RBAC_FIX = "kubectl apply -f deploy/rbac"
NATS_FIX = (
    "start one with aimctl up, or set its address: AIM_NATS_URL, AIM_NATS_CREDS; one in the cluster"
    " needs kubectl port-forward"
)
STALE_S = 60.0
"""A lease is renewed every 7 s; more than this is neither a slow server nor two clocks that
differ a little."""
BEHIND = 1000
FULL = 0.9


def findings(facts: Facts) -> list[Finding]:
    """All findings, by area. Without an API server only the bus is checked."""
    if isinstance(facts.server, Unknown):
        fix = (
            "correct the kubeconfig (--kubeconfig, KUBECONFIG), or start the cluster: aimlab dev"
            " has one"
        )
        return [
            Finding(
                "kubernetes", "error", f"the API server does not respond: {facts.server.why}", fix
            ),
            *bus(facts),
        ]
    installed = (kubernetes, pod_security, kinds, kserve, gateway_api, unlisted_kinds)
    used = (services, api_server, permissions, bus, storage, gateways, nodes, registries)
    return [finding for part in (*installed, *used) for finding in part(facts)]


def kubernetes(facts: Facts) -> Iterator[Finding]:
    found = re.match(r"v?(\d+)\.(\d+)", str(facts.server))
    oldest = ".".join(map(str, OLDEST_KUBERNETES))
    if found is not None and (int(found[1]), int(found[2])) < OLDEST_KUBERNETES:
        yield Finding(
            "kubernetes",
            "error",
            f"version {facts.server} is older than {oldest}",
            f"upgrade the cluster to {oldest} or newer",
        )
    else:
        yield Finding("kubernetes", "ok", f"version {facts.server}")
    namespaces = {name_of(body) for body in facts.of(NAMESPACE)}
    if facts.namespace not in namespaces and not isinstance(
        facts.objects.get(NAMESPACE.kind), Unknown
    ):
        create = f"kubectl create namespace {facts.namespace}, or set AIM_NAMESPACE"
        yield Finding(
            "kubernetes",
            "error",
            f"there is no namespace {facts.namespace}, which the control plane needs",
            create,
        )


def _definition(facts: Facts, resource: Resource) -> Body | None:
    return (
        None
        if isinstance(facts.crds, Unknown)
        else facts.crds.get(f"{resource.plural}.{resource.group}")
    )


def _served_versions(definition: Body) -> dict[str, Body]:
    """The versions that are served, with their definitions; none before the server has taken it."""
    established = any(
        c.get("type") == "Established" and c.get("status") == "True"
        for c in definition.get("status", {}).get("conditions") or ()
    )
    return (
        {each["name"]: each for each in definition["spec"]["versions"] if each.get("served")}
        if established
        else {}
    )


def kinds(facts: Facts) -> Iterator[Finding]:
    """Whether the five kinds are there, and are those of this aimctl."""
    if isinstance(facts.crds, Unknown):
        yield Finding(
            "kinds",
            "warning",
            f"cannot list CRDs: {facts.crds.why}",
            "grant get on customresourcedefinitions",
        )
        return
    problems: defaultdict[tuple[Level, str], list[str]] = defaultdict(list)
    for kind in KINDS:
        resource = next(each for each in AIM_KINDS if each.kind == kind.__name__)
        problem = _problem(
            _definition(facts, resource), resource, crd(kind)["spec"]["versions"][0]["schema"]
        )
        if problem is not None:
            problems[problem].append(resource.kind)
    for (level, message), lacking in problems.items():
        yield Finding(
            "kinds",
            level,
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} {message}",
            "kubectl apply -f deploy/crds",
        )
    if not problems:
        yield Finding("kinds", "ok", f"the five kinds are installed, in {AIM_KINDS[0].version}")


def _problem(definition: Body | None, resource: Resource, schema: Body) -> tuple[Level, str] | None:
    served = {} if definition is None else _served_versions(definition)
    if definition is None:
        return "error", "not installed"
    if resource.version not in served:
        return "error", f"not served in {resource.version}"
    return (
        None
        if served[resource.version].get("schema") == schema
        else ("warning", "of another release than this aimctl")
    )


def kserve(facts: Facts) -> Iterator[Finding]:
    definition = _definition(facts, INFERENCE_SERVICE)
    if isinstance(facts.crds, Unknown):
        return
    if definition is None or INFERENCE_SERVICE.version not in _served_versions(definition):
        yield Finding(
            "kserve",
            "error",
            f"InferenceService {INFERENCE_SERVICE.version} is not installed",
            INSTALL_KSERVE,
        )
    elif controllers := facts.of(DEPLOYMENT):
        yield from map(_kserve_controller, controllers)
    else:
        yield _without_kserve_controller(facts)


def _kserve_controller(controller: Body) -> Finding:
    image = _controller_image(controller)
    who = f"its controller {name_of(controller)}"
    ready = controller.get("status", {}).get("readyReplicas", 0)
    desired = controller["spec"].get("replicas", 1)
    if ready < desired or not desired:
        metadata = controller["metadata"]
        command = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}"
        message = f"{who} ({image}) has {ready} of {desired} pods ready"
        return Finding("kserve", "error", message, command)
    if (version := _version(image)) is not None and version < OLDEST_KSERVE:
        message = (
            f"{who} ({image}) is older than {OLDEST}: it does not know the mode Standard, and may"
            " run models in another"
        )
        fix = (
            f"upgrade KServe to {OLDEST} or newer, or set kserveMode=RawDeployment in the chart"
            " (AIM_KSERVE_MODE)"
        )
        return Finding("kserve", "warning", message, fix)
    return Finding("kserve", "ok", f"{who} is ready ({image})")


def _without_kserve_controller(facts: Facts) -> Finding:
    """An InferenceService with a status shows that a controller runs under another label."""
    reconciled = (
        name_of(each)
        for each in facts.of(INFERENCE_SERVICE)
        if each.get("status", {}).get("conditions")
    )
    name = next(reconciled, "")
    if name:
        message = (
            f"InferenceService {INFERENCE_SERVICE.version} is served, and a controller writes the"
            f" status of {name}"
        )
        return Finding("kserve", "ok", message)
    message = (
        "whether a controller runs is not known: no Deployment labelled"
        " control-plane=kserve-controller-manager, and no InferenceService with a status"
    )
    return Finding("kserve", "warning", message, INSTALL_KSERVE)


def _controller_image(deployment: Body) -> str:
    """Of the container that is the controller: some put a proxy before it."""
    images = [
        str(container.get("image"))
        for container in deployment["spec"]["template"]["spec"]["containers"]
    ]
    return next((image for image in images if "kserve" in image), images[0])


def _version(image: str) -> tuple[int, int] | None:
    """Of a tag such as v0.15.2; None where the tag is no version, or a digest stands for it."""
    found = re.search(r":v?(\d+)\.(\d+)[^/:]*$", image.partition("@")[0])
    return None if found is None else (int(found[1]), int(found[2]))


def gateway_api(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.crds, Unknown):
        return
    for resource in (GATEWAY, ROUTE):
        definition = _definition(facts, resource)
        if definition is None or resource.version not in _served_versions(definition):
            yield Finding(
                "gateway api",
                "error",
                f"{resource.kind} {resource.version} is not installed",
                INSTALL_GATEWAY_API,
            )
            return
    bundle = ((_definition(facts, ROUTE) or {})["metadata"].get("annotations") or {}).get(
        BUNDLE_VERSION, "unknown release"
    )
    yield Finding(
        "gateway api", "ok", f"Gateway and HTTPRoute {ROUTE.version} are served, {bundle}"
    )


def unlisted_kinds(facts: Facts) -> Iterator[Finding]:
    """Kinds that could not be listed: the findings below do not count them."""
    for kind, found in facts.objects.items():
        if isinstance(found, Unknown):
            yield Finding(
                "kubernetes",
                "warning",
                f"cannot list {kind}: {found.why}",
                f"grant list on {kind}",
            )


def services(facts: Facts) -> Iterator[Finding]:
    """Which services have a leader, by their Leases."""
    leases = {lease["metadata"]["name"]: lease.get("spec") or {} for lease in facts.of(LEASE)}
    active: list[str] = []
    inactive: list[str] = []
    for service in SERVICES:
        spec = leases.get(f"aim-{service}", {})
        age_s = _age_s(spec.get("renewTime"), facts.now)
        (
            active
            if spec.get("holderIdentity") and age_s is not None and age_s < STALE_S
            else inactive
        ).append(service)
    fix = f"aimctl up, or check their pods: kubectl -n {facts.namespace} get pods"
    if not active:
        yield Finding(
            "services",
            "warning",
            f"none of the six is running: no Lease in {facts.namespace} is held",
            fix,
        )
    elif inactive:
        yield Finding(
            "services",
            "error",
            f"not running: {', '.join(f'aim-{service}' for service in inactive)} (no process holds"
            " the Lease)",
            fix,
        )
    else:
        yield Finding("services", "ok", f"all six are running: {', '.join(active)}")


def _age_s(renewed: object, now: datetime.datetime) -> float | None:
    try:
        return (now - parse_timestamp(str(renewed))).total_seconds() if renewed else None
    except ValueError:
        return None


def permissions(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.access, Unknown):
        yield Finding(
            "permissions",
            "warning",
            f"not checked: {facts.access.why}",
            "run aimctl doctor from a checkout, as a user with access",
        )
        return
    missing = _missing_accounts(facts)
    none_exists = len(missing) == len(SERVICES)
    if none_exists and not _runs_in_one_process(facts):
        message = (
            f"none of the services' ServiceAccounts is in {facts.namespace}: needed in the cluster,"
            " not for aimctl up"
        )
        yield Finding("permissions", "warning", message, RBAC_FIX)
    elif missing and not none_exists:
        message = f"no ServiceAccount {', '.join(missing)} in {facts.namespace}"
        yield Finding("permissions", "error", message, RBAC_FIX)
    if isinstance(facts.access.accounts, Unknown):
        yield Finding(
            "permissions",
            "warning",
            f"the permissions of the services are unknown: {facts.access.accounts.why}",
            "grant create on subjectaccessreviews.authorization.k8s.io",
        )
    elif not none_exists:
        yield from _check_granted(facts.access.accounts)
    yield from _own_permissions(facts.access.own)


def _runs_in_one_process(facts: Facts) -> bool:
    """Whether one account has the roles of all services."""
    accounts = {body["metadata"]["name"] for body in facts.of(SERVICE_ACCOUNT)}
    return f"aim-{ALL_IN_ONE}" in accounts


def _missing_accounts(facts: Facts) -> list[str]:
    """ServiceAccounts of services that do not exist; none where they cannot be listed."""
    if isinstance(facts.objects.get(SERVICE_ACCOUNT.kind), Unknown):
        return []
    existing = {body["metadata"]["name"] for body in facts.of(SERVICE_ACCOUNT)}
    expected = (f"aim-{service}" for service in SERVICES)
    return [account for account in expected if account not in existing]


def _own_permissions(own: tuple[Checked, ...]) -> Iterator[Finding]:
    lacking = _lacking(own)
    if lacking:
        grants = "; ".join(f"{verbs} {what}" for (_, what), verbs in lacking.items())
        yield Finding(
            "permissions",
            "warning",
            f"you may not {grants}: aimctl up needs that",
            f"request it, or run the services under their accounts: {RBAC_FIX}",
        )
    elif own:
        yield Finding("permissions", "ok", "your user has all permissions for aimctl up")


def _check_granted(checks: Iterable[Checked]) -> Iterator[Finding]:
    checks = tuple(checks)
    lacking = _lacking(checks)
    for (account, what), verbs in lacking.items():
        yield Finding("permissions", "error", f"{account} may not {verbs} {what}", RBAC_FIX)
    if not lacking:
        count = len({check.grant.account for check in checks})
        yield Finding(
            "permissions",
            "ok",
            f"{count} accounts have the {len(checks)} permissions that the services need",
        )


def _lacking(checks: Iterable[Checked]) -> dict[tuple[str, str], str]:
    """(account, what and where) → the verbs that are not granted."""
    verbs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for grant in (check.grant for check in checks if not check.allowed):
        plural, slash, subresource = grant.resource.partition("/")
        named = f" named {', '.join(grant.names)}" if grant.names else ""
        where = f"in {grant.namespace or 'every namespace'}"
        verbs[
            grant.account,
            f"{qualified_name(plural, grant.group)}{slash}{subresource}{named} {where}",
        ].append(grant.verb)
    return {place: ", ".join(dict.fromkeys(found)) for place, found in verbs.items()}


def bus(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.bus, Unknown):
        # Before an installation there is none, and it is not configured either.
        yield Finding("nats", "error" if facts.nats_url else "warning", facts.bus.why, NATS_FIX)
        return
    found = facts.bus
    yield from _streams(found)
    for stream in (found.log, found.state):
        if (
            stream is not None
            and stream.max_bytes is not None
            and stream.size_bytes > FULL * stream.max_bytes
        ):
            dropped = (
                "events early" if stream is found.log else "objects that have not changed for long"
            )
            message = (
                f"{stream.name} has {human(stream.size_bytes)} of {human(stream.max_bytes)}; at its"
                f" limit it drops {dropped}"
            )
            yield Finding("nats", "warning", message, "AIM_NATS_MAX_BYTES of the watcher")
    if found.most_bytes is not None and found.used_bytes > FULL * found.most_bytes:
        message = (
            f"{human(found.used_bytes)} of the {human(found.most_bytes)} that may be stored are"
            " in use"
        )
        yield Finding(
            "nats",
            "warning",
            message,
            "give the NATS account or server more room (jetstream max_file)",
        )


def _streams(found: BusStats) -> Iterator[Finding]:
    log, state = found.log, found.state
    if log is None or state is None:
        names = [
            name for name, stream in (("AIM_LOG", log), ("AIM_STATE", state)) if stream is None
        ]
        yield Finding(
            "nats",
            "warning",
            f"the server runs, but there is no stream {', '.join(names)}",
            "start the watcher, which creates them: aimctl up",
        )
        return
    room = (
        "no limit"
        if found.most_bytes is None
        else f"{human(found.most_bytes - found.used_bytes)} left"
    )
    if state.lag is None or state.last_seq > log.last_seq:
        message = (
            f"AIM_STATE is no mirror of the current AIM_LOG ({state.last_seq} of {log.last_seq})"
        )
        yield Finding("nats", "error", message, "start the watcher, which re-creates it: aimctl up")
    elif state.lag > BEHIND:
        yield Finding(
            "nats",
            "warning",
            f"AIM_STATE is {state.lag} messages behind AIM_LOG",
            "if that persists, check the disk of the NATS server",
        )
    else:
        message = (
            f"{_describe_stream(log)}; {_describe_stream(state)}, level; {room}; readers:"
            f" {', '.join(sorted({r.name or 'unnamed' for r in found.readers})) or 'none'}"
        )
        yield Finding("nats", "ok", message)


def _describe_stream(stream: StreamStats) -> str:
    return (
        f"{stream.name} {stream.messages} messages in {human(stream.size_bytes)}, {stream.replicas}"
        f" {'copies' if stream.replicas > 1 else 'copy'}"
    )
