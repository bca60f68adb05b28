"""Whether messages on the bus keep to the contract of their sender and to the schema of their
type."""

import contextlib
from collections.abc import Mapping
from functools import cache

import msgspec
from jsonschema import Draft202012Validator

import aimbus
from aimbus.envelope import CAUSE, MSG_ID, SOURCE, TRACEPARENT
from aimctl.contracts import CONSOLE, CONTRACTS
from aimschema import subjects
from aimschema.schema_compat import FAMILIES, schemas, tag

SENDERS = {
    contract.service if contract is CONSOLE else f"aim-{contract.service}": contract
    for contract in CONTRACTS
}
"""The contracts by ce-source."""
HEADERS = {
    "ce-specversion": "CloudEvents, NATS protocol binding, binary mode",
    "ce-id": "identifies the message, the same for every attempt to send it",
    "ce-type": "the type of the message",
    SOURCE: "the sender",
    "ce-subject": "the object of the message",
    "ce-time": "RFC 3339",
    "ce-datacontenttype": "application/json",
    TRACEPARENT: "W3C Trace Context",
    CAUSE: "sequences in AIM_LOG that caused the message, separated by commas",
    MSG_ID: "by which the stream discards duplicates",
}
OPTIONAL_HEADERS = frozenset({CAUSE})


def flaws(subject: str, headers: Mapping[str, str], data: bytes) -> list[str]:
    """How a message differs from the contract of its sender and the schema of its type."""
    kind, sender = headers.get("ce-type", ""), SENDERS.get(headers.get(SOURCE, ""))
    found = [
        f"header {name} is missing"
        for name in HEADERS
        if name not in headers and name not in OPTIONAL_HEADERS
    ]
    if sender is None:
        found.append(f"no service is called {headers.get(SOURCE)!r}")
    elif not any(subjects.matches(pattern, subject) for pattern in sender.emits):
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


async def flaws_of_log(
    nats_url: str, access: aimbus.NatsCredentials | None = None
) -> tuple[int, list[str]]:
    """The number of messages in AIM_LOG, and the flaws of each by sequence."""
    found, count = [], 0
    bus = await aimbus.connect(nats_url, name="aimctl", access=access or aimbus.NatsCredentials())
    try:
        async with contextlib.aclosing(aimbus.read_stored(bus, [subjects.ALL])) as messages:
            async for message in messages:
                count += 1
                found += [
                    f"{message.seq} on {message.subject}: {flaw}"
                    for flaw in flaws(message.subject, message.headers, message.data)
                ]
    finally:
        await bus.close()
    return count, found
