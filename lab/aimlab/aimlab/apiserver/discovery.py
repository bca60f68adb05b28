"""Discovery documents: /api and /apis in both forms, and the OpenAPI v3 that kubectl reads before
it applies. Pure.

The OpenAPI of built-in kinds is permissive: it lists the operations and accepts any field. Custom
kinds show their schema.
"""

from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256, sha512

import msgspec

from aimlab.apiserver.cluster import Cluster
from aimlab.apiserver.kinds import CUSTOM_VERBS, VERBS, Resource
from aimlab.apiserver.objects import Obj

VERSION: Obj = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "aimlab",
    "gitTreeState": "",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
META_REF = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)


def group_versions(cluster: Cluster) -> dict[str, dict[str, list[Resource]]]:
    """The served resources by group and version, in the order they came."""
    found: dict[str, dict[str, list[Resource]]] = {}
    for resource in cluster.resources.values():
        found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return found


def verbs(resource: Resource) -> list[str]:
    """What can be done with a resource."""
    if resource.custom:
        return list(CUSTOM_VERBS)
    return [
        verb
        for verb in VERBS
        if not (verb == "deletecollection" and resource.storage == ("", "namespaces"))
    ]


def core_versions(address: str) -> Obj:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(cluster: Cluster) -> Obj:
    """GET /apis."""
    found = [
        _group(name, list(versions)) for name, versions in group_versions(cluster).items() if name
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def _group(name: str, versions: list[str]) -> Obj:
    named = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": named, "preferredVersion": named[0]}


def group(cluster: Cluster, name: str) -> Obj | None:
    """GET /apis/<group>; None if there is no such group."""
    versions = group_versions(cluster).get(name)
    return (
        {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))}
        if versions
        else None
    )


def resource_list(cluster: Cluster, name: str, version: str) -> Obj | None:
    """GET /apis/<group>/<version> and /api/v1; None if there is no such version."""
    resources = group_versions(cluster).get(name, {}).get(version)
    if not resources:
        return None
    group_version = f"{name}/{version}" if name else version
    found = [entry for resource in resources for entry in _resource_entries(resource)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": found,
    }


def _resource_entries(resource: Resource) -> Iterable[Obj]:
    digest = sha256(f"{resource.group}/{resource.version}/{resource.kind}".encode()).digest()[:8]
    entry: Obj = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(resource),
        "storageVersionHash": b64encode(digest).decode(),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    yield entry
    for name, (kind, allowed) in resource.subresources.items():
        yield {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind,
            "verbs": list(allowed),
        }


def aggregated_document(cluster: Cluster, *, core: bool) -> Obj:
    """GET /api (core) or /apis as one document with everything (KEP-3352)."""
    items = []
    for name, versions in group_versions(cluster).items():
        if (name == "") is core:
            listed = [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [
                        _discovery_entry(found)
                        for found in sorted(resources, key=lambda r: r.plural)
                    ],
                }
                for version, resources in versions.items()
            ]
            items.append({"metadata": {} if core else {"name": name}, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _discovery_entry(resource: Resource) -> Obj:
    version = resource.version if resource.group else ""
    entry: Obj = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": resource.group, "version": version, "kind": kind},
                "verbs": list(allowed),
            }
            for name, (kind, allowed) in sorted(resource.subresources.items())
        ]
    return entry


@lru_cache(maxsize=4)
def openapi(cluster: Cluster, _discovery_version: int) -> dict[str, bytes]:
    """The OpenAPI v3 document of every group and version, by its path (`api/v1`,
    `apis/apps/v1`); kept until a definition changes."""
    return {
        f"apis/{name}/{version}" if name else f"api/{version}": msgspec.json.encode(
            _document(resources)
        )
        for name, versions in group_versions(cluster).items()
        for version, resources in versions.items()
    }


def openapi_index(cluster: Cluster) -> Obj:
    """GET /openapi/v3."""
    documents = openapi(cluster, cluster.discovery_version)
    return {
        "paths": {
            path: {
                "serverRelativeURL": f"/openapi/v3/{path}?hash={sha512(raw).hexdigest().upper()}"
            }
            for path, raw in documents.items()
        }
    }


def _document(resources: list[Resource]) -> Obj:
    schemas: Obj = {META_REF: {"type": "object", "description": "Standard object metadata."}}
    paths: Obj = {}
    for resource in resources:
        schemas[_schema_name(resource)] = _schema(resource)
        base = (
            f"/apis/{resource.group}/{resource.version}"
            if resource.group
            else f"/api/{resource.version}"
        )
        place = (
            f"{base}/namespaces/{{namespace}}/{resource.plural}"
            if resource.namespaced
            else f"{base}/{resource.plural}"
        )
        paths[place] = {
            "get": _operation(resource, "list"),
            "post": _operation(resource, "post"),
            "delete": _operation(resource, "deletecollection"),
        }
        one = {verb: _operation(resource, verb) for verb in ("get", "put", "patch", "delete")}
        paths[f"{place}/{{name}}"] = one
        if resource.namespaced:
            paths[f"{base}/{resource.plural}"] = {"get": _operation(resource, "list")}
        if resource.status:
            paths[f"{place}/{{name}}/status"] = {
                verb: one[verb] for verb in ("get", "put", "patch")
            }
    info = {"title": "Kubernetes API double", "version": "v1.36.2"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _gvk(resource: Resource) -> Obj:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _operation(resource: Resource, verb: str) -> Obj:
    names = (
        ["dryRun", "fieldManager", "fieldValidation"] if verb in ("post", "put", "patch") else []
    )
    names += ["force"] if verb == "patch" else []
    types = {
        "patch": PATCHES,
        "post": ("application/json",),
        "put": ("application/json",),
    }.get(verb, ())
    reference = {"schema": {"$ref": f"#/components/schemas/{_schema_name(resource)}"}}
    action = {"put": "put", "patch": "patch", "post": "post"}.get(verb, verb)
    return {
        "operationId": f"{action}{resource.kind}",
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in names
        ],
        "responses": {"200": {"description": "OK", "content": {"application/json": reference}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
        **({"requestBody": {"content": dict.fromkeys(types, reference)}} if types else {}),
    }


def _schema_name(resource: Resource) -> str:
    if resource.custom:
        return f"{'.'.join(reversed(resource.group.split('.')))}.{resource.version}.{resource.kind}"
    group = resource.group.split(".", maxsplit=1)[0] or "core"
    return f"io.k8s.api.{group}.{resource.version}.{resource.kind}"


def _schema(resource: Resource) -> Obj:
    schema = resource.schema or {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {},
    }
    texts = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    properties = {
        **(schema.get("properties") or {}),
        **texts,
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{META_REF}"}]},
    }
    return {**schema, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(resource)]}
