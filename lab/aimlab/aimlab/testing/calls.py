"""The calls that the API server double has recorded."""

from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from aimlab.accounts import api_of
from aimlab.apiserver.access import Call
from aimlab.apiserver.http import CALLS_PATH


async def recorded_calls(kubeconfig: Path) -> Counter[Call]:
    """How often each kind of call was made so far, by all users."""
    async with (
        aiohttp.ClientSession(trust_env=False) as client,
        client.get(f"{api_of(kubeconfig).url}{CALLS_PATH}") as answer,
    ):
        return Counter(dict(map(_parse_record, await answer.json())))


def _parse_record(record: dict[str, Any]) -> tuple[Call, int]:
    count = record.pop("count")
    return Call(**record), count
