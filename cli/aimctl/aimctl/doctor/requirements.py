"""Whether the cluster has what its configs, caches, templates and models ask for: storage,
gateways, GPUs, registries. Pure."""

from collections.abc import Iterator, Mapping

from aim_deployer.gpus import Gpu
from aim_deployer.render import CPU_PER_GPU, MEMORY_REQUEST_GI_PER_GPU
from aim_discovery.image import parse_image
from aim_router.listeners import takes_http_routes
from aimctl.doctor.snapshot import Body, Facts, Finding, Level, Unknown, is_condition_true, name_of
from aimkube.selectors import expression_holds
from aimschema import quantities, reasons
from aimschema.labels import DEFAULT_STORAGE_CLASS
from aimschema.quantities import parse
from aimschema.resources import (
    CACHE,
    CLAIM,
    CONFIG,
    GATEWAY,
    GATEWAY_CLASS,
    MODEL,
    NAMESPACE,
    NODE,
    SERVICE,
    STORAGE_CLASS,
    TEMPLATE,
)

MANY = "ReadWriteMany"
SHARES = (
    "nfs.csi.k8s.io",
    "efs.csi.aws.com",
    "fsx.csi.aws.com",
    "file.csi.azure.com",
    "filestore.csi.storage.gke.io",
    ".cephfs.csi.ceph.com",
)
SHARES_NOT = (
    "ebs.csi.aws.com",
    "disk.csi.azure.com",
    "pd.csi.storage.gke.io",
    ".rbd.csi.ceph.com",
    "csi.hetzner.cloud",
    "topolvm.io",
)
"""Provisioners by the end of their name: file systems with ReadWriteMany, and storage without.
Source: their own documentation; the API does not have it."""
BETA = "beta."
"""Before the names of the AMD node labeller's labels, in its older releases."""


def storage(facts: Facts) -> Iterator[Finding]:
    """The classes that caches get their volumes from."""
    classes = {body["metadata"]["name"]: body for body in facts.of(STORAGE_CLASS)}
    if isinstance(facts.objects.get(STORAGE_CLASS.kind), Unknown):
        return
    defaults = [
        name
        for name, body in classes.items()
        if (body["metadata"].get("annotations") or {}).get(DEFAULT_STORAGE_CLASS) == "true"
    ]
    requested, needs_default = _requested_classes(facts)
    yield from _default_classes(defaults, needs_default)
    for name, who in requested.items():
        if name not in classes:
            message = f"there is no storage class {name}, which {', '.join(who)} names"
            yield Finding("storage", "error", message, f"create it, or change {who[0]}")
    used = [name for name in classes if name in requested or name in defaults]
    shared = {
        claim["spec"].get("storageClassName") for claim in facts.of(CLAIM) if _is_shared(claim)
    }
    yield from (
        _sharing(classes[name], requested.get(name, []), proved=name in shared) for name in used
    )


def _default_classes(defaults: list[str], needs_default: list[str]) -> Iterator[Finding]:
    if not defaults:
        message = "there is no default storage class" + (
            f"; {', '.join(needs_default)} would use it" if needs_default else ""
        )
        fix = (
            "cacheStorageClassName in the AIMNamespaceConfig, or annotate a class with"
            " storageclass.kubernetes.io/is-default-class=true"
        )
        yield Finding("storage", "error" if needs_default else "warning", message, fix)
    elif len(defaults) > 1:
        message = f"{', '.join(defaults)} are all the default: the newest is used"
        fix = "take storageclass.kubernetes.io/is-default-class off all but one"
        yield Finding("storage", "warning", message, fix)


def _requested_classes(facts: Facts) -> tuple[dict[str, list[str]], list[str]]:
    """Storage classes by who names them, and who names none."""
    named: dict[str, list[str]] = {}
    silent = []
    fields = [
        (f"AIMNamespaceConfig {name_of(body)}", body["spec"].get("cacheStorageClassName"))
        for body in facts.of(CONFIG)
    ]
    fields += [
        (f"ModelCache {name_of(body)}", body["spec"]["storageClassName"])
        for body in facts.of(CACHE)
        if "storageClassName" in body["spec"]
    ]
    for who, name in fields:
        if name:
            named.setdefault(name, []).append(who)
        else:
            silent.append(who)
    return named, silent


def _is_shared(claim: Body) -> bool:
    return claim.get("status", {}).get("phase") == "Bound" and MANY in claim["spec"].get(
        "accessModes", ()
    )


def _sharing(body: Body, requested_by: list[str], *, proved: bool) -> Finding:
    """Whether volumes of a class can be mounted by many nodes: by a claim that has one, else by
    what its provisioner is known for."""
    name, provisioner = body["metadata"]["name"], str(body.get("provisioner"))
    if proved:
        return Finding(
            "storage", "ok", f"class {name} gives {MANY} volumes, as existing caches show"
        )
    if provisioner.endswith(SHARES):
        return Finding(
            "storage", "ok", f"class {name} is of {provisioner}, which has {MANY} volumes"
        )
    fix = "name a class of a shared file system in cacheStorageClassName of the AIMNamespaceConfig"
    if provisioner.endswith(SHARES_NOT):
        message = (
            f"class {name} is of {provisioner}, which has no {MANY} file systems: caches would wait"
            " for ever"
        )
        return Finding("storage", "error" if requested_by else "warning", message, fix)
    message = (
        f"whether class {name} ({provisioner}) gives {MANY} volumes cannot be known from the API"
    )
    return Finding("storage", "warning", message, f"create one to find out, or {fix}")


def gateways(facts: Facts) -> Iterator[Finding]:
    """The Gateways that configs name."""
    if isinstance(facts.objects.get(GATEWAY.kind), Unknown):
        return
    if not any(is_condition_true(body, "Accepted") for body in facts.of(GATEWAY_CLASS)):
        yield Finding(
            "gateway",
            "warning",
            "no GatewayClass is accepted by a controller: no Gateway can work",
            "install a Gateway API implementation",
        )
    for config in facts.of(CONFIG):
        routing = config["spec"].get("routing")
        if routing is not None and routing.get("autoCreateRoute", True):
            yield from _gateway_of(config, facts)


def _gateway_of(config: Body, facts: Facts) -> Iterator[Finding]:
    """The Gateway that the routing of a config names."""
    reference = config["spec"]["routing"].get("gateway") or {}
    namespace = config["metadata"]["namespace"]
    who = f"AIMNamespaceConfig {name_of(config)}"
    place = (reference.get("namespace") or namespace, reference.get("name", ""))
    existing = {
        (body["metadata"]["namespace"], body["metadata"]["name"]): body
        for body in facts.of(GATEWAY)
    }
    if not reference.get("name"):
        yield Finding(
            "gateway",
            "error",
            f"{who} has routing without a gateway: its services stay Degraded",
            f"spec.routing.gateway.name of {who}",
        )
    elif place not in existing:
        yield Finding(
            "gateway",
            "error",
            f"there is no Gateway {'/'.join(place)}, which {who} names",
            f"create it, or change spec.routing of {who}",
        )
    else:
        spaces = {body["metadata"]["name"]: body for body in facts.of(NAMESPACE)}
        space = spaces.get(namespace, {"metadata": {"name": namespace}})
        yield _gateway_state(existing[place], reference, space, who)


def _gateway_state(gateway: Body, reference: Body, namespace: Body, who: str) -> Finding:
    name = name_of(gateway)
    metadata = gateway["metadata"]
    command = f"kubectl -n {metadata['namespace']} describe gateway {metadata['name']}"
    unmet = [type_ for type_ in ("Accepted", "Programmed") if not is_condition_true(gateway, type_)]
    if unmet:
        message = f"Gateway {name}, which {who} names, is not {' and '.join(unmet)}"
        return Finding("gateway", "error", message, command)
    chosen = [each for each in gateway["spec"]["listeners"] if _is_meant(each, reference)]
    if not chosen:
        message = (
            f"Gateway {name} has no listener as {who} names it (sectionName"
            f" {reference.get('sectionName')}, port {reference.get('port')})"
        )
        return Finding("gateway", "error", message, f"spec.routing.gateway of {who}")
    if not any(_lets_in(each, metadata["namespace"], namespace) for each in chosen):
        message = (
            f"no listener of Gateway {name} accepts HTTPRoutes from namespace"
            f" {namespace['metadata']['name']}"
        )
        fix = (
            f"allowedRoutes of a listener of Gateway {name}: namespaces.from All, or a Selector"
            " that fits"
        )
        return Finding("gateway", "error", message, fix)
    addresses = gateway.get("status", {}).get("addresses")
    if not addresses:
        return Finding("gateway", "warning", f"Gateway {name} has no address yet", command)
    message = f"Gateway {name} at {addresses[0].get('value')} accepts the routes of {who}"
    return Finding("gateway", "ok", message)


def _is_meant(listener: Body, reference: Body) -> bool:
    return all(
        reference.get(field) in {None, listener.get(own)}
        for field, own in (("sectionName", "name"), ("port", "port"))
    )


def _lets_in(listener: Body, gateway_namespace: str, namespace: Body) -> bool:
    """AllowedRoutes of the Gateway API: the kinds as the router reads them; the namespaces by
    `from`, Same by default."""
    spaces = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    match spaces.get("from", "Same"):
        case "All":
            fits = True
        case "Same":
            fits = namespace["metadata"]["name"] == gateway_namespace
        case "Selector":
            fits = _selects(spaces.get("selector") or {}, namespace["metadata"].get("labels") or {})
        case _:
            fits = False
    return fits and takes_http_routes(listener, {})


def _selects(selector: Body, found: Mapping[str, str]) -> bool:
    """metav1.LabelSelector."""
    named = all(
        found.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    )
    return named and all(
        expression_holds(each, found) for each in selector.get("matchExpressions") or ()
    )


def nodes(facts: Facts) -> Iterator[Finding]:
    """The GPUs that there are, and those that templates ask for."""
    if isinstance(facts.objects.get(NODE.kind), Unknown):
        return
    usable = [
        node
        for node in facts.of(NODE)
        if is_condition_true(node, "Ready") and not node.get("spec", {}).get("unschedulable")
    ]
    vendors = {(gpu.resource, gpu.label) for gpu in facts.gpus.values()}
    gpu_nodes = [
        (node, resource, label)
        for node in usable
        for resource, label in sorted(vendors)
        if _count(node, resource) or label in _labels(node)
    ]
    for node, resource, label in gpu_nodes:
        yield from _node(node, resource, label)
    if not gpu_nodes:
        fix = (
            "add such nodes, and the device plugin and node labeller of their GPUs (for AMD: the"
            " AMD GPU operator)"
        )
        yield Finding("gpu", "warning", "no ready node has a known GPU", fix)
    used = {
        (s["metadata"]["namespace"], s["spec"].get("templateRef"))
        for s in facts.of(SERVICE)
        if s["spec"].get("replicas", 1)
    }
    for template in facts.of(TEMPLATE):
        in_use = (template["metadata"]["namespace"], template["metadata"]["name"]) in used
        yield _template(template, facts, usable, level="error" if in_use else "warning")


def _node(node: Body, resource: str, label: str) -> Iterator[Finding]:
    name = node["metadata"]["name"]
    count = _count(node, resource)
    value = _labels(node).get(label)
    if not count:
        yield Finding(
            "gpu",
            "warning",
            f"node {name} is labelled {label}={value}, but has no {resource} to give",
            f"the device plugin of {resource}",
        )
    elif value is None:
        older = (
            f"; it has {BETA}{label}, of an older node labeller"
            if BETA + label in _labels(node)
            else ""
        )
        fix = "install the node labeller (for AMD: the AMD GPU operator), or label the node"
        yield Finding(
            "gpu",
            "warning",
            f"node {name} has {count} {resource}, but no label {label}{older}: no template"
            " finds it",
            fix,
        )
    else:
        yield Finding("gpu", "ok", f"node {name} has {count} {resource}, {label}={value}")


def _template(template: Body, facts: Facts, usable: list[Body], level: Level) -> Finding:
    """Level: how bad it is where no node fits it."""
    who = f"AIMServiceTemplate {name_of(template)}"
    model = template["spec"]["gpuModel"]
    gpus = int(template["spec"]["gpusPerReplica"])
    gpu = facts.gpus.get(model)
    if gpu is None:
        fix = (
            f"add {model} to the table that AIM_GPU_TABLE names, or use one of"
            f" {', '.join(facts.gpus)}"
        )
        return Finding("gpu", level, f"{who} needs {model}, which is in no GPU table", fix)
    fitting = [node for node in usable if _labels(node).get(gpu.label) in gpu.values]
    if not fitting:
        message = f"{who} needs {model}, which no ready node has"
        return Finding("gpu", level, message, _add(gpu, gpus))
    most = max(_count(node, gpu.resource) for node in fitting)
    if most < gpus:
        message = f"{who} needs {gpus} {model} in one node; {most} is the most there is"
        return Finding("gpu", level, message, _add(gpu, gpus))
    large_enough = [node for node in fitting if _count(node, gpu.resource) >= gpus]
    roomy = [node for node in large_enough if _has_room(node, gpus)]
    if not roomy:
        cpu, memory = CPU_PER_GPU * gpus, f"{MEMORY_REQUEST_GI_PER_GPU * gpus}Gi"
        message = (
            f"{who} needs {gpus} {model} with cpu {cpu} and memory {memory} in one node;"
            f" allocatable: {_rooms(large_enough)}"
        )
        fix = (
            f"add a node with {gpu.resource}: {gpus}, cpu: {cpu} and memory: {memory}, or use a"
            " template with fewer GPUs"
        )
        return Finding("gpu", level, message, fix)
    message = f"{who} needs {gpus} {model}: available in {', '.join(_names(roomy))}"
    return Finding("gpu", "ok", message)


def _has_room(node: Body, gpus: int) -> bool:
    """Whether a node without other pods has the cpu and memory that a model with so many GPUs
    requests."""
    needs = {
        "cpu": quantities.exact(str(CPU_PER_GPU * gpus)),
        "memory": quantities.exact(f"{MEMORY_REQUEST_GI_PER_GPU * gpus}Gi"),
    }
    has = node.get("status", {}).get("allocatable") or {}
    return all(
        resource in has and quantities.exact(str(has[resource])) >= need
        for resource, need in needs.items()
    )


def _rooms(nodes: list[Body], most: int = 5) -> str:
    rooms = []
    for node in nodes[:most]:
        has = node.get("status", {}).get("allocatable") or {}
        rooms.append(
            f"{node['metadata']['name']} cpu {has.get('cpu', 'unknown')}, memory"
            f" {has.get('memory', 'unknown')}"
        )
    return "; ".join([*rooms, *([f"{len(nodes) - most} more nodes"] if len(nodes) > most else [])])


def _add(gpu: Gpu, count: int) -> str:
    return (
        f"add a node with {gpu.resource}: {count} and a label {gpu.label} of"
        f" {', '.join(gpu.values)}, or use another template"
    )


def _names(fitting: list[Body], most: int = 5) -> list[str]:
    names = sorted(node["metadata"]["name"] for node in fitting)
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def _labels(node: Body) -> dict[str, str]:
    found: dict[str, str] = node["metadata"].get("labels") or {}
    return found


def _count(node: Body, resource: str) -> int:
    """How many it has to give in all; other pods may have them."""
    return parse((node.get("status", {}).get("allocatable") or {}).get(resource, 0))


def hosts(models: tuple[Body, ...]) -> dict[str, str]:
    """The registries of images, with the address of each one's API; images that are none are
    left out."""
    found = {}
    for model in models:
        try:
            image = parse_image(model["spec"]["image"])
        except ValueError:
            continue
        found[image.registry] = f"{image.scheme}://{image.host}/v2/"
    return found


def registries(facts: Facts) -> Iterator[Finding]:
    for model in facts.of(MODEL):
        yield from _image_of(model)
    for host, problem in facts.registries.items():
        if problem:
            yield Finding(
                "registry",
                "warning",
                f"{host} does not respond here: {problem}",
                "if the cluster reaches it, all is well; else its network",
            )
        else:
            yield Finding("registry", "ok", f"{host} answers")


def _image_of(model: Body) -> Iterator[Finding]:
    """What is wrong with the image of an AIMClusterModel."""
    name = name_of(model)
    try:
        parse_image(model["spec"]["image"])
    except ValueError as error:
        yield Finding(
            "registry",
            "error",
            f"AIMClusterModel {name}: {error}",
            f"spec.image of AIMClusterModel {name}",
        )
        return
    fix = f"correct spec.image, the registry or its credentials, then aimctl retry aimclm/{name}"
    for condition in model.get("status", {}).get("conditions") or ():
        if (condition.get("type"), condition.get("status")) == (reasons.IMAGE_INSPECTED, "False"):
            problem = condition.get("message", condition.get("reason"))
            yield Finding("registry", "error", f"AIMClusterModel {name}: {problem}", fix)
