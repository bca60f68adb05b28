"""Reading the log of a discovery's pod: at most 4 MiB, once a pod."""

from collections.abc import Sequence

from aim_discovery.output import LARGEST_LOG_BYTES
from aim_discovery.plan import LOG, ReadLogResult
from aimkube import NotFound, Rejected
from aimschema.resources import Key
from aimservice.loop import Loop
from aimservice.plan import Action, ReadLog
from aimservice.projection import Learned


async def read_log(loop: Loop, action: Action, about: Key, causes: Sequence[int]) -> None:
    """The handler of ReadLog actions."""
    assert isinstance(action, ReadLog), action
    try:
        raw = await loop.cluster.read_log(action.pod.namespace or "", action.pod.name, action.container, limit_bytes=LARGEST_LOG_BYTES + 1)
    except (NotFound, Rejected) as error:
        result = ReadLogResult(problem=f"the log of pod {action.pod.name} cannot be had: {error}")
    else:
        too_long = len(raw) > LARGEST_LOG_BYTES
        result = (
            ReadLogResult(problem=f"the log is longer than {LARGEST_LOG_BYTES >> 20} MiB")
            if too_long
            else ReadLogResult(raw.decode(errors="replace"))
        )
    await loop.record(action, about, causes)
    loop.learn(Learned(action.pod, LOG, result), about, causes)
