"""Objects against the strict schemas of Kubernetes, from the package `kubernetes_validate`.

Its own `validate` reads the definitions of all kinds again for each object, which takes longer than
to validate it.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

VERSION = "1.32"
FOLDER = f"kubernetes-json-schema/v{VERSION}.0-local-strict"


def validate(body: Mapping[str, Any]) -> None:
    """Raises jsonschema.ValidationError for an invalid object, FileNotFoundError for an unknown
    kind."""
    _validate(json.dumps(body, sort_keys=True))


@cache
def _validate(text: str) -> None:
    """Cached, since most sets of values render most objects the same."""
    body = json.loads(text)
    _validator(body["kind"], body["apiVersion"]).validate(body)


@cache
def _validator(kind: str, api_version: str) -> Any:
    named = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"{FOLDER}/{kind.lower()}-{named}.json", VERSION)
    registry: Any = Resource.from_contents(schema) @ _definitions()
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions() -> Any:
    known: Registry[Any] = Registry()
    return Resource.from_contents(schema_contents(f"{FOLDER}/_definitions.json", VERSION)) @ known
