"""What a user writes when all is well: few objects, so that random operations meet each other.

An image's tag says how it behaves, to the stand-ins of the laptop cluster and of the simulation
alike.
"""

from collections.abc import Iterator

from aim_testing.soak.state import Body
from aimschema.names import SYSTEM_NAMESPACE
from aimschema.resources import (
    CONFIG,
    MODEL,
    NAMESPACE,
    SECRET,
    SERVICE,
    TEMPLATE,
    Key,
    Resource,
    key_of,
)

NAMESPACES = ("soak-a", "soak-b")
MODELS = (0, 1)
SERVICES = (0, 1, 2)
GATEWAY = {"name": "aim-gateway", "namespace": SYSTEM_NAMESPACE}
KEYS = "keys"
REPOSITORY = "registry.lab.local/soak/model"
GOOD = ("good", "better")
BAD = ("mute", "crash", "unready", "missing", "gone")
"""`mute` answers discovery with nothing; `crash` and `unready` fail to serve; `missing` cannot be
pulled; the source that `gone` names is not there."""


def image(model: int, behaviour: str) -> str:
    return f"{REPOSITORY}-{model}:{behaviour}"


def behaviour_of(name: str) -> str:
    return name.rpartition(":")[2]


def source(model: int, behaviour: str = "good") -> str:
    return f"hf://org/gone-{model}" if behaviour == "gone" else f"hf://org/model-{model}"


def an_object(kind: Resource, namespace: str | None, name: str, spec: Body | None = None) -> Body:
    place = {} if namespace is None else {"namespace": namespace}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **place}}
    return body if spec is None else {**body, "spec": spec}


def model_name(model: int) -> str:
    return f"org/model-{model}:1"


def config_spec() -> Body:
    token = {"name": KEYS, "key": "token"}
    routing = {"gateway": GATEWAY, "autoCreateRoute": True}
    return {"credentials": {"huggingFaceToken": token}, "routing": routing}


def template_spec(model: int, *, warm: bool = False) -> Body:
    spec = {"model": model_name(model), "metric": "latency", "gpuModel": "MI300X"}
    return spec | {"gpusPerReplica": 1, "tensorParallelism": 1, "warmCache": warm}


def service_spec(number: int) -> Body:
    """The last loads its model itself and has a separate config."""
    model = number % len(MODELS)
    spec = {"model": model_name(model), "templateRef": f"t{model}", "replicas": 1}
    last = number == SERVICES[-1]
    return spec | {"cacheModel": not last, "configRef": "other" if last else "default"}


def manifests() -> dict[Key, Body]:
    """In the order in which they can be created."""
    return {key_of(body): body for body in _manifests()}


def _manifests() -> Iterator[Body]:
    for namespace in NAMESPACES:
        yield an_object(NAMESPACE, None, namespace)
    for model in MODELS:
        yield an_object(
            MODEL, None, f"m{model}", {"name": model_name(model), "image": image(model, "good")}
        )
    for namespace in NAMESPACES:
        yield an_object(SECRET, namespace, KEYS) | {"stringData": {"token": "hf_soak"}}
        for config in ("default", "other"):
            yield an_object(CONFIG, namespace, config, config_spec())
        for model in MODELS:
            yield an_object(TEMPLATE, namespace, f"t{model}", template_spec(model, warm=model == 0))
        for number in SERVICES:
            yield an_object(SERVICE, namespace, f"s{number}", service_spec(number))
