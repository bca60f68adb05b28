"""What create, update, patch and apply do to an object, from the decoded body to the store. No I/O.

One write: check the request, make the candidate, default and prune it, reset what the (sub)resource
does not own, validate, keep the record of field owners, move the generation, store. A write that
changes nothing keeps its resourceVersion.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from aimlab.apiserver import admission, builtin, crd, fields, names, patch, schema
from aimlab.apiserver.cel import MISSING
from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
    stale,
)
from aimlab.apiserver.immutable import as_json
from aimlab.apiserver.kinds import Resource
from aimlab.apiserver.objects import Json, Obj, clone, dig, meta, same

SERVER_FIELDS = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
    "name",
    "selfLink",
)
UNSET_ON_CREATE = (
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "resourceVersion",
    "generation",
    "managedFields",
)
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which object is written, by whom and how. `namespace` is "" for cluster-scoped kinds;
    `subresource` is "" or "status".

    `authorize_create` raises ApiError 403 where the writer may change objects and not make them; an
    apply asks it.
    """

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    authorize_create: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Result:
    """The answer to a write: HTTP status, body and Warning headers."""

    code: int
    body: Obj
    warnings: list[str] = field(default_factory=list)


def create(cluster: Cluster, request: Request, body: Obj) -> Result:
    """POST. ApiError 400 for a body that does not fit the request, 404 without its namespace,
    409 if it exists, 422 if invalid."""
    resource, metadata = request.resource, _checked_identity(request, body)
    if not metadata.get("name"):
        if not metadata.get("generateName"):
            causes = [
                Cause(
                    "metadata.name",
                    "FieldValueRequired",
                    "Required value: name or generateName is required",
                )
            ]
            raise invalid(resource.group, resource.kind, "", causes)
        metadata["name"] = names.generate_name(metadata["generateName"])
    if "resourceVersion" in metadata:
        raise bad_request("resourceVersion should not be set on objects to be created")
    return _insert(cluster, request, body, None)


def _insert(
    cluster: Cluster, request: Request, body: Obj, owners: list[fields.Owner] | None
) -> Result:
    """Store a new object; `owners` is what apply found, None for other writes."""
    resource, metadata = request.resource, meta(body)
    if resource.namespaced:
        metadata["namespace"] = request.namespace
        cluster.require_open_namespace(resource, request.namespace, metadata["name"])
    else:
        metadata.pop("namespace", None)
    if owners is not None:
        request.authorize_create()
    for name in UNSET_ON_CREATE:
        metadata.pop(name, None)
    metadata |= {"uid": str(uuid4()), "creationTimestamp": cluster.time()}
    if resource.to_storage:
        body = resource.to_storage(body)
    obj, warnings = _prune_and_default(request, body)
    _complete_new(cluster, resource, obj)
    _validate(cluster, resource, obj, None)
    _require_absent(cluster, request, metadata["name"])
    warnings += admission.admit(cluster, resource, obj)
    if owners is None:
        owners = fields.owners_after_update(
            [],
            _writer(cluster, request, "Update"),
            {},
            _without_status(request, obj),
            resource.shape,
        )
    metadata["managedFields"] = fields.encode(owners)
    if not request.dry_run:
        obj = cluster.store.put(resource.storage, obj).obj
        admission.count(cluster, resource, obj)
    return Result(201, resource.view(obj), warnings)


def _complete_new(cluster: Cluster, resource: Resource, obj: Obj) -> None:
    """Write what the server itself writes into a new object of this kind."""
    if resource.counts_generation:
        meta(obj)["generation"] = 1
    if resource.custom and resource.status:
        obj.pop("status", None)
    if resource.kind == crd.KIND:
        obj["status"] = crd.first_status(obj)
    elif not resource.custom:
        admission.complete(cluster, obj, new=True)
        builtin.fill(obj)
        builtin.create(obj, cluster.time())


def _require_absent(cluster: Cluster, request: Request, name: str) -> None:
    resource = request.resource
    entry = cluster.store.collections[resource.storage].get(request.namespace, name)
    if entry is not None:
        deleting = "deletionTimestamp" in meta(entry.obj)
        raise already_exists(resource.group, resource.plural, name, deleting=deleting)


def update(cluster: Cluster, request: Request, body: Obj) -> Result:
    """PUT. ApiError 404 if absent, 409 if the resourceVersion or uid is not the stored one, 422
    if invalid."""
    resource, metadata = request.resource, _checked_identity(request, body)
    live = cluster.get(resource, request.namespace, request.name).obj
    if "resourceVersion" not in metadata and not resource.blind_update:
        causes = [
            Cause(
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
            )
        ]
        raise invalid(resource.group, resource.kind, request.name, causes)
    return _replace(
        cluster, request, live, resource.to_storage(body) if resource.to_storage else body
    )


def apply_patch(cluster: Cluster, request: Request, body: Json, media_type: str) -> Result:
    """PATCH by media type. ApiError as for `update`; 415 for a patch this kind does not take."""
    if media_type == APPLY:
        return server_side_apply(cluster, request, body)
    resource = request.resource
    if media_type not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH) or (
        media_type == STRATEGIC_PATCH and resource.custom
    ):
        accepted = (
            [JSON_PATCH, MERGE_PATCH, APPLY]
            if resource.custom
            else [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY]
        )
        what = (
            "the body of the request was in an unknown format - accepted media types include:"
            f" {', '.join(accepted)}"
        )
        raise ApiError(415, "UnsupportedMediaType", what)
    live = cluster.get(resource, request.namespace, request.name).obj
    viewed = clone(resource.view(live))
    if media_type == JSON_PATCH:
        candidate = patch.json_patch(viewed, body)
    elif not isinstance(body, dict):
        raise bad_request("a merge patch is an object")
    else:
        candidate = (
            patch.merge(viewed, body)
            if media_type == MERGE_PATCH
            else patch.strategic(viewed, body, resource.shape)
        )
    _checked_identity(request, candidate)
    return _replace(
        cluster, request, live, resource.to_storage(candidate) if resource.to_storage else candidate
    )


def bind(cluster: Cluster, request: Request, node: str) -> Result:
    """POST of a Pod's binding. ApiError 404, 409 if the pod has its node."""
    live = cluster.get(request.resource, request.namespace, request.name).obj
    bound_to = dig(live, "spec", "nodeName")
    if bound_to:
        why = f"pod {request.name} is already assigned to node {as_json(bound_to)}"
        raise conflict("", "pods/binding", request.name, why)
    return apply_patch(cluster, request, {"spec": {"nodeName": node}}, MERGE_PATCH)


def server_side_apply(cluster: Cluster, request: Request, body: Json) -> Result:
    """Server-side apply; creates the object if it is absent. ApiError 409 on conflicts, 422
    without a field manager, 500 if it does not fit."""
    resource = request.resource
    if not request.manager:
        causes = [
            Cause(
                "fieldManager", "FieldValueRequired", "Required value: is required for apply patch"
            )
        ]
        raise invalid("meta.k8s.io", "PatchOptions", "", causes)
    metadata = _checked_identity(request, body)
    if "managedFields" in metadata:
        raise bad_request("metadata.managedFields must be nil")
    metadata["name"] = request.name
    entry = cluster.store.collections[resource.storage].get(request.namespace, request.name)
    if entry is None and request.subresource:
        raise not_found(resource.group, resource.plural, request.name)
    _require_typed(request, body)
    writer = _writer(cluster, request, "Apply")
    live = entry.obj if entry else {}
    owners = fields.decode(dig(live, "metadata", "managedFields"))
    merged, owners = fields.apply(
        live, _applied_part(request, body), owners, writer, resource.shape, force=request.force
    )
    if entry is None:
        if metadata.get("uid"):
            why = (
                f"uid mismatch: the provided object specified uid {metadata['uid']}, and no"
                " existing object was found"
            )
            raise conflict(resource.group, resource.plural, request.name, why)
        return _insert(cluster, request, clone(merged), owners)
    return _replace(cluster, request, live, clone(merged), owners)


def _applied_part(request: Request, body: Obj) -> Obj:
    """Without the status, or with little else, as the path of the request says."""
    if request.subresource:
        parts = ("apiVersion", "kind", "metadata", "status")
        return {name: body[name] for name in parts if name in body}
    return _without_status(request, body)


def _require_typed(request: Request, body: Obj) -> None:
    wrong = list(fields.type_errors(body, request.resource.shape))
    if wrong:
        resource = request.resource
        group = f"{resource.group}/{resource.version}" if resource.group else resource.version
        where = f"{request.namespace}/{request.name}; {group}, Kind={resource.kind}"
        raise ApiError(
            500,
            "",
            f"failed to create typed patch object ({where}):"
            f" {wrong[0] if len(wrong) == 1 else f'errors: {chr(10).join(wrong)}'}",
        )


def _replace(
    cluster: Cluster,
    request: Request,
    live: Obj,
    candidate: Obj,
    owners: list[fields.Owner] | None = None,
) -> Result:
    """Store a candidate over the live object; `owners` is what apply found, None for other
    writes."""
    resource, metadata = request.resource, meta(candidate)
    _check_preconditions(request, live, metadata, apply=owners is not None)
    sent_owners = metadata.pop("managedFields", None)
    obj, warnings = _replacement(cluster, request, live, candidate)
    metadata = meta(obj)
    metadata.pop("managedFields", None)
    _validate(cluster, resource, obj, None if request.subresource == "binding" else live)
    if not request.subresource:
        warnings += admission.admit(cluster, resource, obj, live)
    if owners is None:
        known = _owners_before(sent_owners, live)
        owners = fields.owners_after_update(
            known, _writer(cluster, request, "Update"), live, obj, resource.shape
        )
    if _substance(resource, obj) != _substance(resource, live) and resource.counts_generation:
        metadata["generation"] = live["metadata"].get("generation", 0) + 1
    metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
    metadata["managedFields"] = fields.encode(owners)
    return Result(200, resource.view(_commit(cluster, request, live, obj)), warnings)


def _replacement(
    cluster: Cluster, request: Request, live: Obj, candidate: Obj
) -> tuple[Obj, list[str]]:
    """The live object with the part that the path of the request writes, and the warnings."""
    if request.subresource == "status":
        obj, warnings = _prune_and_default(
            request, {**clone(live), "status": candidate.get("status")}, live
        )
        if obj.get("status") is None:
            obj.pop("status", None)
        return obj, warnings
    metadata, live_metadata = meta(candidate), live["metadata"]
    for name in SERVER_FIELDS:
        if name in live_metadata:
            metadata[name] = live_metadata[name]
        else:
            metadata.pop(name, None)
    if request.resource.status:
        candidate = _with_status(candidate, live.get("status"))
    obj, warnings = _prune_and_default(request, candidate, live)
    if not request.resource.custom:
        admission.complete(cluster, obj, new=False)
    return obj, warnings


def _commit(cluster: Cluster, request: Request, live: Obj, obj: Obj) -> Obj:
    """Store, unless nothing changed; the last finalizer takes the object with it."""
    metadata = meta(obj)
    if request.dry_run or same(_timeless(live), _timeless(obj)):
        return obj if request.dry_run else live
    if (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    ):
        if request.resource.storage == ("", "namespaces"):
            return cluster.store.put(request.resource.storage, obj).obj
        cluster.store.remove(request.resource.storage, request.namespace, request.name, last=obj)
        return obj
    return cluster.store.put(request.resource.storage, obj).obj


def _timeless(obj: Obj) -> Obj:
    """An object without what a no-op may still differ in."""
    metadata = dict(obj["metadata"])
    owners = metadata.pop("managedFields", None) or []
    shape = [{name: value for name, value in owner.items() if name != "time"} for owner in owners]
    return {
        **obj,
        "metadata": {
            **metadata,
            "managedFields": sorted(
                shape, key=lambda owner: (owner["manager"], owner["operation"])
            ),
        },
    }


def _with_status(obj: Obj, status: Json) -> Obj:
    rest = {name: value for name, value in obj.items() if name != "status"}
    return rest if status is None else {**rest, "status": clone(status)}


def _without_status(request: Request, obj: Obj) -> Obj:
    return (
        {name: value for name, value in obj.items() if name != "status"}
        if request.resource.status
        else obj
    )


def _owners_before(sent: Json, live: Obj) -> list[fields.Owner]:
    """The owners a write starts from: what it sends, if it sends any; an empty list forgets
    them."""
    if sent is None:
        return fields.decode(dig(live, "metadata", "managedFields"))
    return fields.decode([owner for owner in sent if owner])


def _writer(cluster: Cluster, request: Request, operation: str) -> fields.Owner:
    return fields.Owner(
        request.manager,
        operation,
        request.resource.api_version,
        request.subresource,
        cluster.time(),
    )


def _checked_identity(request: Request, body: Json) -> Obj:
    """The metadata of a body that fits its URL; ApiError 400 if it does not."""
    resource = request.resource
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    if body.setdefault("apiVersion", resource.api_version) != resource.api_version:
        what = (
            f"the API version in the data ({body['apiVersion']}) does not match the expected API"
            f" version ({resource.api_version})"
        )
        raise bad_request(what)
    if body.setdefault("kind", resource.kind) != resource.kind:
        raise bad_request(
            f'{body["kind"]} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: the kind does not match"
        )
    metadata = meta(body)
    if request.name and metadata.setdefault("name", request.name) != request.name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL"
            f" ({request.name})"
        )
    if (
        resource.namespaced
        and metadata.get("namespace")
        and metadata["namespace"] != request.namespace
    ):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    for name in [name for name, value in metadata.items() if value is None]:
        del metadata[name]
    return metadata


def _check_preconditions(request: Request, live: Obj, metadata: Obj, *, apply: bool) -> None:
    resource, current = request.resource, live["metadata"]
    if metadata.get("uid", current["uid"]) != current["uid"] and not (
        apply and request.subresource
    ):
        why = (
            f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta:"
            f" {current['uid']}"
        )
        raise conflict(resource.group, resource.plural, request.name, why)
    if metadata.get("resourceVersion") not in (None, "", "0", current["resourceVersion"]):
        raise stale(resource.group, resource.plural, request.name)


def _prune_and_default(
    request: Request, obj: Obj, live: Obj | None = None
) -> tuple[Obj, list[str]]:
    """The object with unknown fields dropped and defaults filled in, and the warnings about it.
    ApiError 400 under strict validation."""
    resource = request.resource
    if resource.schema is None:
        if why := builtin.unreadable(obj):
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a'
                f" {resource.kind}: {why}"
            )
        crd.fill(obj) if resource.kind == crd.KIND else builtin.fill(obj)
        return obj, []
    unknown = [f'unknown field "{path}"' for path in schema.prune(obj, resource.schema)]
    if unknown and request.validation == "Strict":
        what = (
            f'{resource.kind} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: strict decoding error: "
        )
        raise bad_request(what + ", ".join(unknown))
    status = live.get("status") if live else None
    if resource.status and not request.subresource and status is None:
        obj.pop("status", None)
    schema.default(obj, resource.schema)
    return obj, unknown if request.validation == "Warn" else []


def _validate(cluster: Cluster, resource: Resource, obj: Obj, live: Obj | None) -> None:
    """ApiError 422 with everything that is wrong."""
    metadata = obj["metadata"]
    causes: list[Cause] = []
    if live is None:
        causes += names.bad_name(metadata["name"], resource.kind, path_names=resource.path_names)
    causes += names.bad_labels(metadata.get("labels"))
    causes += names.bad_annotations(metadata.get("annotations"))
    if live is not None:
        causes += _late_finalizers(resource, metadata, live)
    if resource.kind == crd.KIND:
        causes += crd.validate(obj, live)
    elif resource.schema is None:
        causes += builtin.validate(obj, live)
        if not cluster.loopback_endpoints:
            causes += builtin.loopback_endpoints(obj)
    else:
        causes += schema.problems(
            obj, resource.schema, resource.rules, MISSING if live is None else live
        )
    if causes:
        raise invalid(resource.group, resource.kind, metadata["name"], causes)


def _late_finalizers(resource: Resource, metadata: Obj, live: Obj) -> list[Cause]:
    """Finalizers that were added to an object that is being deleted. For a custom resource the
    server lists them twice."""
    if "deletionTimestamp" not in live["metadata"]:
        return []
    before = live["metadata"].get("finalizers") or ()
    late = [name for name in metadata.get("finalizers") or () if name not in before]
    if not late:
        return []
    quoted = ", ".join(f'"{name}"' for name in late)
    message = (
        "Forbidden: no new finalizers can be added if the object is being deleted, found new"
        f" finalizers []string{{{quoted}}}"
    )
    cause = Cause("metadata.finalizers", "FieldValueForbidden", message)
    return [cause] * (2 if resource.custom else 1)


def _substance(resource: Resource, obj: Obj) -> Json:
    """What a generation counts the changes of."""
    if not resource.custom:
        return obj.get("spec")
    return {
        name: value
        for name, value in obj.items()
        if name not in ("metadata", "apiVersion") and not (resource.status and name == "status")
    }
