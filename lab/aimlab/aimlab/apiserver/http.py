"""The HTTP shell: URLs to reads, writes, watches and documents; bodies and answers in the forms
clients negotiate.

Everything that decides is in the other modules. Writes are synchronous, so two requests never
interleave inside one.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import yaml
from aiohttp import ClientSession, web

from aimlab.apiserver import (
    deletes,
    discovery,
    logs,
    policies,
    protobuf,
    queries,
    reviews,
    table,
    watch,
    webhooks,
    writes,
)
from aimlab.apiserver.access import Access, Attributes, User, attributes
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import ApiError, bad_request
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Json, Obj, clone, dig

CLUSTER = web.AppKey("cluster", Cluster)
KUBELETS = web.AppKey("kubelets", ClientSession)
ACCESS = web.AppKey("access", Access)
USER = web.RequestKey("user", User)
ATTRIBUTES = web.RequestKey("asked", Attributes)
CALLS_PATH = "/lab/calls"
HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
MAX_BODY_BYTES = 16 * 2**20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JsonLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: times stay text."""


JsonLoader.yaml_implicit_resolvers = {
    first_char: [
        (tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first_char, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Target:
    """What a URL under /api or /apis means. `namespace` None: all of them; `name` "": the
    collection."""

    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""


def application(cluster: Cluster, access: Access) -> web.Application:
    """The server's routes over a cluster."""
    app = web.Application(middlewares=[_answer_errors], client_max_size=MAX_BODY_BYTES)
    app[CLUSTER], app[ACCESS] = cluster, access
    for slash in ("", "/"):
        app.router.add_get(f"/version{slash}", _version)
        app.router.add_get(f"/api{slash}", _core)
        app.router.add_get(f"/apis{slash}", _groups)
    for path in HEALTH:
        app.router.add_get(path, _healthy)
    app.router.add_get("/openapi/v3", _openapi_index)
    app.router.add_get("/openapi/v3/{path:.+}", _openapi)
    app.router.add_get(CALLS_PATH, _calls)
    for plural in reviews.KINDS:
        app.router.add_post(f"/apis/authorization.k8s.io/v1/{plural}", _review)
    app.router.add_route("*", "/{path:.*}", _dispatch)
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        access = request.app[ACCESS]
        request[USER] = access.user_of(request.headers)
        request[ATTRIBUTES] = attributes(request.method, request.path, request.query)
        access.require(request[USER], request[ATTRIBUTES])
        return await handler(request)
    except ApiError as error:
        return _json(error.body(), error.code)
    except msgspec.DecodeError as error:
        return _json(bad_request(f"error decoding the body: {error}").body(), 400)


def _json(body: Json, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(
        body=msgspec.json.encode(body), status=code, content_type="application/json"
    )
    for warning in warnings or ():
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def _no_page() -> web.Response:
    return web.Response(text="404 page not found\n", status=404)


async def _version(_request: web.Request) -> web.Response:
    return _json(discovery.VERSION)


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _calls(request: web.Request) -> web.Response:
    """Every kind of call that was made so far and how often, for who measures what is needed. Not a
    path of Kubernetes."""
    calls = sorted(request.app[ACCESS].calls.items())
    return _json([call._asdict() | {"count": count} for call, count in calls])


async def _review(request: web.Request) -> web.Response:
    """SelfSubjectAccessReview and SubjectAccessReview: what `kubectl auth can-i` and operators
    ask."""
    access, body = request.app[ACCESS], await _body(request)
    return _json(reviews.answer(request.path.rpartition("/")[2], body, request[USER], access), 201)


async def _core(request: web.Request) -> web.Response:
    if "as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
        return _aggregated_response(discovery.aggregated_document(request.app[CLUSTER], core=True))
    return _json(discovery.core_versions(request.host))


async def _groups(request: web.Request) -> web.Response:
    if "as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
        return _aggregated_response(discovery.aggregated_document(request.app[CLUSTER], core=False))
    return _json(discovery.groups(request.app[CLUSTER]))


def _aggregated_response(document: Obj) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), headers={"Content-Type": discovery.AGGREGATED}
    )


async def _openapi_index(request: web.Request) -> web.Response:
    index = msgspec.json.encode(discovery.openapi_index(request.app[CLUSTER]))
    return web.Response(text=index.decode())  # as text/plain, as the real server


async def _openapi(request: web.Request) -> web.Response:
    cluster = request.app[CLUSTER]
    raw = discovery.openapi(cluster, cluster.discovery_version).get(request.match_info["path"])
    return web.Response(body=raw, content_type="application/json") if raw else _no_page()


async def _dispatch(request: web.Request) -> web.StreamResponse:
    cluster = request.app[CLUSTER]
    parts = request.path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 1:
        group = ""
        version = parts[1]
        rest = parts[2:]
    elif parts[0] == "apis" and len(parts) > 2:
        group = parts[1]
        version = parts[2]
        rest = parts[3:]
    elif parts[0] == "apis" and len(parts) == 2 and (found := discovery.group(cluster, parts[1])):
        return _json(found)
    else:
        return _no_page()
    if not rest:
        listed = discovery.resource_list(cluster, group, version)
        return _json(listed) if listed else _no_page()
    target = _target(cluster, group, version, rest)
    if target is None:
        return _no_page()
    if target.subresource not in ("", *target.resource.subresources):
        raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
    return await _act(request, cluster, target)


def _target(cluster: Cluster, group: str, version: str, rest: list[str]) -> Target | None:
    """The target of the URL's part after the version; None if there is no such resource."""
    namespace: str | None = None
    own = rest[0] == "namespaces" and (len(rest) < 3 or rest[2] in ("status", "finalize"))
    if rest[0] == "namespaces" and not own and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    resource = cluster.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace is not None) > resource.namespaced:
        return None
    name, subresource = [*rest[1:], "", ""][:2]
    if resource.namespaced and name and namespace is None:
        return None
    return Target(resource, namespace if resource.namespaced else "", name, subresource)


async def _act(request: web.Request, cluster: Cluster, target: Target) -> web.StreamResponse:
    if target.subresource == "log":
        pod = cluster.get(target.resource, target.namespace or "", target.name).obj
        return await logs.proxy(
            request,
            request.app[KUBELETS],
            logs.kubelet_url(cluster, pod, request.query.get("container", "")),
        )
    match request.method:
        case "GET" if target.name:
            _require_json(request)
            found = target.resource.view(
                cluster.get(target.resource, target.namespace or "", target.name).obj
            )
            shape = _render(request, cluster, target)
            return _json(shape(found) if shape else found)
        case "GET" if request.query.get("watch", "") in ("true", "1"):
            return await _watch(request, cluster, target)
        case "GET":
            return _list(request, cluster, target)
        case "POST" | "PUT" | "PATCH":
            return await _write(request, cluster, target)
        case "DELETE":
            return await _delete(request, cluster, target)
        case _:
            raise ApiError(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                {},
            )


def _require_json(request: web.Request) -> None:
    accept = request.headers.get("Accept", "*/*")
    if not re.search(r"json|\*/\*|application/\*", accept):
        what = "only the following media types are accepted: application/json"
        raise ApiError(406, "NotAcceptable", what)


def _render(request: web.Request, cluster: Cluster, target: Target) -> watch.Render | None:
    """How the client wants each object: None as it is."""
    form = re.search(
        r"as=(Table|PartialObjectMetadata)\w*", request.headers.get("Accept", "").split(",")[0]
    )
    if form is None:
        return None
    if form[1] == "PartialObjectMetadata":
        return table.partial
    include = request.query.get("includeObject", "Metadata")

    def one_row(obj: Obj) -> Obj:
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table.table(
            target.resource, [obj], cluster.now(), include=include, metadata=metadata
        )

    return one_row


def _list(request: web.Request, cluster: Cluster, target: Target) -> web.Response:
    _require_json(request)
    resource = target.resource
    chosen = queries.selection(resource, target.namespace, request.query)
    page = queries.page(cluster, chosen, request.query)
    shape = _render(request, cluster, target)
    metadata = page.metadata(always_token=resource.custom and shape is None)
    objects = (
        [resource.view(entry.obj) for entry in page.entries]
        if shape or resource.from_storage or not _is_stored_version(page, resource)
        else None
    )
    if shape is table.partial:
        items = [table.partial(obj) for obj in objects or ()]
        return _json(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items,
            }
        )
    if shape:
        include = request.query.get("includeObject", "Metadata")
        return _json(
            table.table(resource, objects or (), cluster.now(), include=include, metadata=metadata)
        )
    raws = (
        [entry.raw for entry in page.entries]
        if objects is None
        else [msgspec.json.encode(obj) for obj in objects]
    )
    head = msgspec.json.encode(
        {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata}
    )
    return web.Response(
        body=b'%s,"items":[%s]}' % (head[:-1], b",".join(raws)), content_type="application/json"
    )


def _is_stored_version(page: queries.Page, resource: Resource) -> bool:
    """Whether the stored form of every entry is the one asked for."""
    return all(entry.obj["apiVersion"] == resource.api_version for entry in page.entries)


async def _watch(request: web.Request, cluster: Cluster, target: Target) -> web.StreamResponse:
    _require_json(request)
    watch_options = watch.parse_watch_options(request.query)
    chosen = queries.selection(target.resource, target.namespace, request.query)
    watcher = watch.Watcher(cluster, chosen, _render(request, cluster, target))
    watcher.start(watch_options)
    try:
        return await watch.stream(request, watcher, watch_options)
    finally:
        watcher.stop()


async def _body(request: web.Request) -> Json:
    """The decoded body, None if it is empty. ApiError 400 or 415."""
    raw = await request.read()
    if request.content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(raw)
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        if "yaml" not in request.content_type:
            raise
    try:
        return yaml.load(raw, Loader=JsonLoader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error


def _write_request(request: web.Request, target: Target) -> writes.Request:
    query = request.query
    manager = query.get("fieldManager", "")
    if not manager and request.content_type != writes.APPLY:
        manager = request.headers.get("User-Agent", "unknown").split("/")[0]
    return writes.Request(
        resource=target.resource,
        namespace=target.namespace or "",
        name=target.name,
        subresource="status" if target.subresource == "status" else "",
        manager=manager,
        dry_run=query.get("dryRun") == "All",
        validation=query.get("fieldValidation", "Warn"),
        force=query.get("force") == "true",
        authorize_create=partial(
            request.app[ACCESS].require_create, request[USER], request[ATTRIBUTES]
        ),
    )


async def _write(request: web.Request, cluster: Cluster, target: Target) -> web.Response:
    body, written = await _body(request), _write_request(request, target)
    if request.method == "POST" and target.subresource == "binding":
        bound = replace(written, subresource="binding")
        result = writes.bind(cluster, bound, str(dig(body, "target", "name")))
        return _json(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"},
            201,
            result.warnings,
        )
    if request.method == "POST" and target.subresource == "token":
        return _token(request, cluster, target, body)
    write = _storing(request, target)
    await _consult(
        request, written, lambda: write(replace(written, dry_run=True), clone(body)).body
    )
    result = write(written, body)
    shape = _render(request, cluster, target)
    return _json(shape(result.body) if shape else result.body, result.code, result.warnings)


def _storing(
    request: web.Request, target: Target
) -> Callable[[writes.Request, Json], writes.Result]:
    """What the method does to the store. ApiError 405."""
    cluster, media_type = request.app[CLUSTER], request.content_type
    if request.method == "POST" and not target.name and target.namespace is not None:
        return partial(writes.create, cluster)
    if request.method == "PUT" and target.name:
        return partial(writes.update, cluster)
    if request.method == "PATCH" and target.name:
        return lambda written, body: writes.apply_patch(cluster, written, body, media_type)
    raise ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
    )


async def _consult(
    request: web.Request, written: writes.Request, outcome: Callable[[], Obj | None]
) -> None:
    """Asks the webhooks. ApiError where they or the outcome are against it."""
    cluster, resource = request.app[CLUSTER], written.resource
    existing = cluster.store.collections[resource.storage].get(written.namespace, written.name)
    operation = "UPDATE" if existing else "CREATE"
    if request.method == "DELETE":
        operation = "DELETE"
    call = webhooks.Call(
        resource, written.subresource, operation, written.namespace, written.name, outcome
    )
    await webhooks.consult(request.app[KUBELETS], cluster, call)
    policies.consult(cluster, call, request[USER])


def _token(request: web.Request, cluster: Cluster, target: Target, body: Json) -> web.Response:
    """TokenRequest: what `kubectl create token` asks."""
    namespace, name = target.namespace or "", target.name
    cluster.get(target.resource, namespace, name)
    status = request.app[ACCESS].issue(namespace, name, dig(body, "spec", "expirationSeconds"))
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": cluster.time()}
    return _json(
        {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "status": status,
        },
        201,
    )


async def _delete(request: web.Request, cluster: Cluster, target: Target) -> web.Response:
    body = await _body(request)
    options = _delete_options(request, body if isinstance(body, dict) else {})
    written = _write_request(request, target)
    if body and "All" in (body.get("dryRun") or ()):
        written = replace(written, dry_run=True)
    if target.name:
        await _consult(request, written, lambda: None)
        result = deletes.delete(cluster, written, options)
        return _json(result.body, result.code)
    answer = _list(request, cluster, target)
    chosen = queries.selection(target.resource, target.namespace, request.query)
    deletes.delete_collection(
        cluster, written, queries.page(cluster, chosen, request.query).entries, options
    )
    return answer


def _delete_options(request: web.Request, body: Obj) -> deletes.Options:
    """DeleteOptions from the body, else from the query."""
    grace = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    if not propagation and "orphanDependents" in body:
        propagation = "Orphan" if body["orphanDependents"] else "Background"
    return deletes.Options(
        grace_s=int(grace) if grace is not None else None,
        propagation=propagation,
        uid=dig(body, "preconditions", "uid") or "",
        resource_version=dig(body, "preconditions", "resourceVersion") or "",
    )
