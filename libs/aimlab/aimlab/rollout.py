"""Which predictor pods to make and which to delete: a Deployment's rolling update with maxSurge 0 and maxUnavailable 1. Pure.

Pods that are on their way out don't count, as in a Deployment. An old pod that is ready goes only while the others keep `replicas - 1` ready; old
pods that are not ready go first, since they serve nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_UNAVAILABLE = 1


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod as the rollout sees it. `number` tells pods of one `revision` apart."""

    name: str
    revision: str
    number: int
    ready: bool = False
    going: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """`create` are numbers for new pods of the wanted revision, `delete` are names."""

    create: tuple[int, ...] = ()
    delete: tuple[str, ...] = ()


def decide(wanted: str, replicas: int, pods: Sequence[Replica]) -> Rollout:
    """The next step towards `replicas` pods of the revision `wanted`."""
    ended = [pod.name for pod in pods if pod.over and not pod.going]
    live = [pod for pod in pods if not pod.over and not pod.going]
    new = sorted((pod for pod in live if pod.revision == wanted), key=lambda pod: (not pod.ready, pod.number))
    old = [pod for pod in live if pod.revision != wanted]
    surplus = new[replicas:]
    going_old = _old_to_delete(replicas, new[:replicas], old)
    remaining = len(new) - len(surplus) + len(old) - len(going_old)
    taken = {pod.number for pod in pods if pod.revision == wanted}
    free = (number for number in range(len(taken) + replicas) if number not in taken)
    create = tuple(next(free) for _ in range(max(0, replicas - remaining)))
    return Rollout(create, (*ended, *(pod.name for pod in [*surplus, *going_old])))


def _old_to_delete(replicas: int, new: Sequence[Replica], old: Sequence[Replica]) -> list[Replica]:
    ready_old = [pod for pod in old if pod.ready]
    unready_old = [pod for pod in old if not pod.ready]
    ready = sum(pod.ready for pod in new) + len(ready_old)
    spare = ready - max(0, replicas - MAX_UNAVAILABLE)
    return unready_old + ready_old[: max(0, spare)]
