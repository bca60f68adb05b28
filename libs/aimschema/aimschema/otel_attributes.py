"""Names of span attributes: those of the OpenTelemetry semantic conventions 1.44.0, and our own
where these have none."""

from aimschema.resources import Key

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM, SYSTEM_NATS = "messaging.system", "nats"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
OPERATION, OPERATION_TYPE = "messaging.operation.name", "messaging.operation.type"
METHOD = "http.request.method"
ERROR_TYPE = "error.type"
NAMESPACE = "k8s.namespace.name"
OBJECT_KIND = "aim.object.kind"
OBJECT_NAME = "aim.object.name"
SUBRESOURCE = "aim.object.subresource"
"""The conventions have a name for each of some built-in kinds, and none for objects of any kind."""
OUTCOME = "aim.outcome"
SERVICE_NAME = "service.name"


def about(key: Key) -> dict[str, str]:
    """Which object a span is about."""
    return {OBJECT_KIND: key.kind, OBJECT_NAME: key.name} | (
        {} if key.namespace is None else {NAMESPACE: key.namespace}
    )
