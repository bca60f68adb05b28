"""What is brought up in every run: manifests for a number of services, the same each time.

Sources are shared between models and models between namespaces; one source has no size, one model
has two sources, one namespace has no config, one service in each namespace is stopped, and some
load their model themselves.
"""

from dataclasses import dataclass
from typing import Any

from aimschema.resources import CONFIG, MODEL, NAMESPACE, SERVICE, TEMPLATE

Body = dict[str, Any]
MODELS = 9
UNCACHED = 8
"""The one model that no service wants cached; its source is its own."""
UNSIZED = 1
TWO_SOURCES = 3
MISSING = 9
"""The model whose source is not there any more; no service of a fleet wants it."""
MISSING_SOURCE = "hf://org/Gone"
FLAKY = 0
GATEWAY = "aim-gateway"
GATEWAY_NAMESPACE = "aim-system"
LISTENER = {
    "name": "web",
    "port": 80,
    "protocol": "HTTP",
    "allowedRoutes": {"namespaces": {"from": "All"}},
}
STOPPED_INDEX = 2
EDITED_INDEX = 1


@dataclass(frozen=True, slots=True)
class Fleet:
    """How much is brought up. `flaky`: the first download of one source fails with exit code 20,
    which costs 30 s."""

    namespaces: int
    templates: int  # a namespace; the last is for the model that is not cached
    services: int  # a namespace
    flaky: bool = False

    @property
    def size(self) -> int:
        return self.namespaces * self.services


FULL = Fleet(namespaces=5, templates=4, services=10)
SMALL = Fleet(namespaces=2, templates=3, services=4)


def of_size(services: int, *, flaky: bool = False) -> Fleet:
    """At least so many services over at most five namespaces."""
    namespaces = min(5, max(1, services // 4))
    return Fleet(
        namespaces,
        templates=min(4, max(2, services // namespaces // 2)),
        services=-(-services // namespaces),
        flaky=flaky,
    )


def sources_of(model: int) -> list[tuple[str, float]]:
    """What the image of a model answers: sources with their size in GiB (0: unknown)."""
    if model == MISSING:
        return [(MISSING_SOURCE, 1.0)]
    number = model if model == UNCACHED else model % 6
    first = (f"hf://org/Model-{number}", 0.0 if number == UNSIZED else 1.5 + number)
    return [first, (f"s3://bucket/org/Adapter-{number}", 0.25)] if model == TWO_SOURCES else [first]


def model_name(model: int) -> str:
    return f"org/model-{model}:1.0"


def model_of_name(name: str) -> int:
    """The inverse of `model_name`."""
    return int(name.removeprefix("org/model-").removesuffix(":1.0"))


REGISTRY = "127.0.0.1:9"
"""The discard port, which is closed: the inspection of an image fails alike in every run."""


def image_of(model: int) -> str:
    return f"{REGISTRY}/model-{model}:1.0"


def model_of_image(image: str) -> int:
    """The inverse of `image_of`."""
    return int(image.removeprefix(f"{REGISTRY}/model-").removesuffix(":1.0"))


def manifests(fleet: Fleet) -> list[Body]:
    """Namespaces, configs and models, then templates, then services."""
    spaces = [f"ns{index}" for index in range(fleet.namespaces)]
    models = sorted({model for space in range(fleet.namespaces) for model in _models(fleet, space)})
    catalogue = [
        an_object(MODEL, None, f"m{model}", {"name": model_name(model), "image": image_of(model)})
        for model in models
    ]
    configs = [_config(space) for index, space in enumerate(spaces) if index != 1]
    templates = [
        _template(fleet, index, space, number)
        for index, space in enumerate(spaces)
        for number in range(fleet.templates)
    ]
    services = [
        _service(fleet, index, space, number)
        for number in range(fleet.services)
        for index, space in enumerate(spaces)
    ]
    return [
        *(
            {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": space}}
            for space in spaces
        ),
        *configs,
        *catalogue,
        *templates,
        *services,
    ]


def edits(fleet: Fleet) -> list[tuple[str, str, Body]]:
    """What the user changes of mind right after: namespace, name and spec of services that shall
    have two replicas."""
    return [
        (f"ns{index}", f"s{EDITED_INDEX}", {"replicas": 2})
        for index in range(fleet.namespaces)
        if fleet.services > EDITED_INDEX
    ]


def _models(fleet: Fleet, space: int) -> list[int]:
    return [
        UNCACHED if number == fleet.templates - 1 else (space * 2 + number) % UNCACHED
        for number in range(fleet.templates)
    ]


def an_object(resource: Any, namespace: str | None, name: str, spec: Body) -> Body:
    metadata = {"name": name} | ({} if namespace is None else {"namespace": namespace})
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": spec,
    }


def _config(space: str) -> Body:
    return an_object(
        CONFIG,
        space,
        "default",
        {"routing": {"gateway": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE}}},
    )


def _template(fleet: Fleet, index: int, space: str, number: int) -> Body:
    model = _models(fleet, index)[number]
    spec = {
        "model": model_name(model),
        "metric": "latency",
        "gpuModel": "MI300X",
        "gpusPerReplica": 1,
        "tensorParallelism": 1,
    }
    return an_object(
        TEMPLATE, space, f"t{number}", spec | ({"warmCache": True} if number == 0 else {})
    )


def _service(fleet: Fleet, index: int, space: str, number: int) -> Body:
    template = number % fleet.templates
    model = _models(fleet, index)[template]
    spec: Body = {
        "model": model_name(model),
        "templateRef": f"t{template}",
        "cacheModel": model != UNCACHED,
    }
    body = an_object(
        SERVICE, space, f"s{number}", spec | ({"replicas": 0} if number == STOPPED_INDEX else {})
    )
    if number == 0:
        body["metadata"]["labels"] = {"aim.silogen.ai/workload-id": f"workload-{index}"}
    return body
