"""What all services do on the bus, as one AsyncAPI 3 document, and whether a message keeps to it:
`python -m aimctl.contracts FILE` writes it.

AsyncAPI 3.0.0 (https://www.asyncapi.com/docs/reference/specification/v3.0.0): a channel for each
family of subjects, and for every service an operation a channel it reads or sends on, with the
filters of the subjects in `x-subjects`.
"""

import contextlib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from jsonschema import Draft202012Validator

import aimbus
from aim_watcher.contract import CONTRACT as WATCHER
from aimbus.envelope import CAUSE, MSG_ID, SOURCE, TRACEPARENT
from aimctl.component_registry import PLANNERS, planner
from aimschema import subjects
from aimschema.schema_compat import FAMILIES, MESSAGES, SUFFIX, Contract, schemas, tag

CONSOLE = Contract(
    "aimctl", consumes=(subjects.ALL, f"{subjects.LIVE_PROGRESS}.>"), emits=(subjects.letters(),)
)
"""People look at everything, and say of letters that they have dealt with them. What they send
again is whole: it keeps its sender's headers."""
CONTRACTS = (WATCHER, *(planner(name).contract for name in PLANNERS), CONSOLE)
SENDERS = {
    contract.service if contract is CONSOLE else f"aim-{contract.service}": contract
    for contract in CONTRACTS
}
"""By ce-source."""

_ADDRESSES = {
    subjects.OBJECT: "{kind}.{namespace}.{name}",
    subjects.SYNCED: "{kind}",
    subjects.REPORT: "{kind}.{namespace}.{name}.{service}",
    subjects.ACTION: "{service}.{kind}.{namespace}.{name}",
    subjects.DEAD: "{service}.{about}",
    subjects.LIVE_PROGRESS: "{kind}.{namespace}.{name}",
}
_PARAMETERS = {
    "kind": "A Kubernetes kind, such as AIMService.",
    "namespace": "`-` for kinds without one.",
    "name": "With `_` in place of dots.",
    "service": "Who sends it.",
    "about": (
        "Kind, namespace and name; or, for a message nobody can read, `unreadable` and that"
        " message's own subject or its hash."
    ),
}
_HEADERS = {
    "ce-specversion": "CloudEvents, NATS protocol binding, binary mode",
    "ce-id": "of what was said, not of the attempt to say it",
    "ce-type": "the message's type",
    SOURCE: "who sent it",
    "ce-subject": "the object it is about",
    "ce-time": "RFC 3339",
    "ce-datacontenttype": "application/json",
    TRACEPARENT: "W3C Trace Context",
    CAUSE: "sequences in AIM_LOG that led here, split by commas",
    MSG_ID: "by which the stream tells a repetition",
}
_OPTIONAL = {CAUSE}


def flaws(subject: str, headers: Mapping[str, str], data: bytes) -> list[str]:
    """In which ways a message on the bus is not what its sender and its type promise."""
    kind, sender = headers.get("ce-type", ""), SENDERS.get(headers.get(SOURCE, ""))
    found = [
        f"header {name} is missing"
        for name in _HEADERS
        if name not in headers and name not in _OPTIONAL
    ]
    if sender is None:
        found.append(f"no service is called {headers.get(SOURCE)!r}")
    elif not any(subjects.covers(pattern, subject) for pattern in sender.emits):
        found.append(f"{sender.service} does not declare that it sends on {subject}")
    if kind not in {tag(message) for message in _messages_on(subject)}:
        found.append(f"{kind!r} does not belong on {subject}")
        return found
    return [
        *found,
        *(
            f"{error.json_path}: {error.message}"
            for error in _validator(kind).iter_errors(msgspec.json.decode(data))
        ),
    ]


def _messages_on(subject: str) -> tuple[type[msgspec.Struct], ...]:
    return next(
        (messages for family, messages in FAMILIES.items() if subject.startswith(f"{family}.")), ()
    )


@cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(schemas()[kind])


async def flaws_of_log(nats_url: str, access: aimbus.Access | None = None) -> tuple[int, list[str]]:
    """How many messages AIM_LOG holds, and what is wrong with which."""
    found, count = [], 0
    bus = await aimbus.connect(nats_url, name="aimctl", access=access or aimbus.Access())
    try:
        async with contextlib.aclosing(aimbus.read_stored(bus, [subjects.ALL])) as stored:
            async for each in stored:
                count += 1
                found += [
                    f"{each.seq} on {each.subject}: {flaw}"
                    for flaw in flaws(each.subject, each.headers, each.data)
                ]
    finally:
        await bus.close()
    return count, found


def asyncapi() -> dict[str, Any]:
    """The document, with references to the schemas that lie beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AIM control plane",
            "version": "0.1.0",
            "description": (
                "What its services say to each other over NATS JetStream. Generated;"
                " docs/reference/contracts.md tells how to change it."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {_id(family): _channel(family) for family in FAMILIES},
        "operations": dict(entry for contract in CONTRACTS for entry in _operations(contract)),
        "components": {
            "messages": {
                message.__name__: {
                    "name": tag(message),
                    "summary": (message.__doc__ or "").strip().partition("\n")[0],
                    "headers": {"$ref": "#/components/schemas/Headers"},
                    "payload": {
                        "schemaFormat": "application/schema+json;version=2020-12",
                        "schema": {"$ref": f"./{tag(message)}{SUFFIX}"},
                    },
                }
                for message in MESSAGES
            },
            "schemas": {
                "Headers": {
                    "type": "object",
                    "required": [name for name in _HEADERS if name not in _OPTIONAL],
                    "properties": {
                        name: {"type": "string", "description": text}
                        for name, text in _HEADERS.items()
                    },
                }
            },
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
                if subjects.covers(f"{family}.>", pattern)
                or subjects.covers(pattern, f"{family}.any")
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
