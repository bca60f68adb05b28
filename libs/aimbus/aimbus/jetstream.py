"""The few requests of the JetStream API that are used here, as JSON over the session.

Field names and units (nanoseconds) are those of the NATS JetStream API's JSON schemas.
"""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from aimbus.errors import ApiError
from aimbus.session import Session

SECOND_NS = 1_000_000_000
STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
INACTIVE_S = 30
API_TIMEOUT_S = 3.0


async def api(session: Session, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request on `$JS.API.<path>`. Raises ApiError, Unreachable or TimeoutError."""
    reply = await session.request(
        f"$JS.API.{path}",
        b"" if body is None else json.dumps(body).encode(),
        timeout_s=API_TIMEOUT_S,
    )
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        error = answer["error"]
        raise ApiError(error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
    return answer


async def stream_info(session: Session, stream: str) -> dict[str, Any] | None:
    """The stream's configuration and state; None if there is none of that name."""
    try:
        return await api(session, f"STREAM.INFO.{stream}")
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


async def create_consumer(
    session: Session, stream: str, filters: Sequence[str], deliver: dict[str, Any]
) -> tuple[str, int]:
    """A consumer in memory without acknowledgements, which the server deletes 30 s after its last
    request. Its description names the reader.

    Returns its name and how much it has to deliver.
    """
    name = uuid.uuid4().hex
    config = {
        "name": name,
        "description": session.name,
        "filter_subjects": list(filters),
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": INACTIVE_S * SECOND_NS,
        **deliver,
    }
    answer = await api(
        session,
        f"CONSUMER.CREATE.{stream}.{name}",
        {"stream_name": stream, "config": config, "action": "create"},
    )
    return name, int(answer.get("num_pending", 0))
