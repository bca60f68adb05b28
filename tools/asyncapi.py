"""Write the contracts of all services as one AsyncAPI 3 document: `python -m tools.asyncapi
contracts/asyncapi.yaml`.

AsyncAPI 3.0.0 (https://www.asyncapi.com/docs/reference/specification/v3.0.0). Each family of
subjects is a channel. Each service has an operation for every channel it reads or sends on, with
the filters of the subjects in `x-subjects`.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from aimctl.contracts import CONTRACTS
from aimlab.testing.bus_contract import HEADERS, OPTIONAL_HEADERS
from aimschema import subjects
from aimschema.schema_compat import FAMILIES, MESSAGES, SUFFIX, Contract, tag

VERSION = Path(__file__).parents[1] / "VERSION"
_ADDRESSES = {
    subjects.OBJECT: "{kind}.{namespace}.{name}",
    subjects.SYNCED: "{kind}",
    subjects.REPORT: "{kind}.{namespace}.{name}.{service}",
    subjects.ACTION: "{service}.{kind}.{namespace}.{name}",
    subjects.DEAD: "{service}.{about}",
    subjects.LIVE_PROGRESS: "{kind}.{namespace}.{name}",
    subjects.HISTORY: "{kind}.{namespace}.{name}",
}
_PARAMETERS = {
    "kind": "A Kubernetes kind, such as AIMService.",
    "namespace": "`-` for kinds without one.",
    "name": "The name, with `_` for each dot.",
    "service": "The sender.",
    "about": (
        "Kind, namespace and name; or, for an undecodable message, `unreadable` and the subject"
        " of that message or its hash."
    ),
}


def asyncapi() -> dict[str, Any]:
    """The document. It refers to the schema files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AIM control plane",
            "version": VERSION.read_text().strip(),
            "description": (
                "The messages that its services exchange over NATS JetStream. Generated;"
                " docs/reference/contracts.md describes how to change it."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {_id(family): _channel(family) for family in FAMILIES},
        "operations": dict(entry for contract in CONTRACTS for entry in _operations(contract)),
        "components": {
            "messages": {message.__name__: _message(message) for message in MESSAGES},
            "schemas": {
                "Headers": {
                    "type": "object",
                    "required": [name for name in HEADERS if name not in OPTIONAL_HEADERS],
                    "properties": {
                        name: {"type": "string", "description": text}
                        for name, text in HEADERS.items()
                    },
                }
            },
        },
    }


def _message(message: type) -> dict[str, Any]:
    return {
        "name": tag(message),
        "summary": (message.__doc__ or "").strip().partition("\n")[0],
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {
            "schemaFormat": "application/schema+json;version=2020-12",
            "schema": {"$ref": f"./{tag(message)}{SUFFIX}"},
        },
    }


def _id(family: str) -> str:
    return {subjects.LIVE_PROGRESS: "progress"}.get(family, family.rpartition(".")[2])


def _channel(family: str) -> dict[str, Any]:
    named = [name for name in _PARAMETERS if f"{{{name}}}" in _ADDRESSES[family]]
    return {
        "address": f"{family}.{_ADDRESSES[family]}",
        "parameters": {name: {"description": _PARAMETERS[name]} for name in named},
        "messages": {
            message.__name__: {"$ref": f"#/components/messages/{message.__name__}"}
            for message in FAMILIES[family]
        },
    }


def _operations(contract: Contract) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for verb, action, patterns in (
        ("reads", "receive", contract.consumes),
        ("sends", "send", contract.emits),
    ):
        for family in FAMILIES:
            here = [
                pattern
                for pattern in patterns
                if subjects.matches(f"{family}.>", pattern)
                or subjects.matches(pattern, f"{family}.any")
            ]
            if here:
                operation = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{_id(family)}"},
                    "x-subjects": here,
                }
                found.append((f"{contract.service}-{verb}-{_id(family)}", operation))
    return found


def main() -> None:
    Path(sys.argv[1]).write_text(
        yaml.safe_dump(asyncapi(), sort_keys=False, width=140, allow_unicode=True)
    )


if __name__ == "__main__":
    main()
