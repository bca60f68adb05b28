"""Which pods of a Deployment to make and which to delete, by its strategy. Pure.

1. Pods that have ended stay and do not count, as in a Deployment.
2. Pods that are on their way out do not count, but under Recreate: there nothing new comes
   while an old pod is still there.
3. Old pods go while enough others are ready; those that are not ready go first, as many as leave
   `replicas - unavailable` pods that are ready or old.
4. New pods come while there are fewer than `replicas + surge` pods.

kube-controller-manager does the same by the sizes of ReplicaSets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod of a rollout. `number` distinguishes pods of one `revision`."""

    name: str
    revision: str
    number: int
    ready: bool = False
    going: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class Strategy:
    """In pods: how many more than `replicas` may be there, and how many need not be ready."""

    surge: int = 0
    unavailable: int = 1
    recreate: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """`create` are numbers for new pods of the wanted revision, `delete` are names."""

    create: tuple[int, ...] = ()
    delete: tuple[str, ...] = ()


def strategy_of(spec: Mapping[str, Any]) -> Strategy:
    """The strategy of a Deployment's spec, percentages resolved (surge up, unavailable down)."""
    replicas, strategy = spec.get("replicas", 1), spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Strategy(0, 0, recreate=True)
    rolling = strategy.get("rollingUpdate") or {}
    surge = math.ceil(_share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = math.floor(_share(rolling.get("maxUnavailable", "25%"), replicas))
    if not surge and not unavailable:
        unavailable = 1
    return Strategy(surge, min(unavailable, replicas))


def _share(amount: int | str, whole: int) -> float:
    return int(amount.removesuffix("%")) * whole / 100 if isinstance(amount, str) else amount


def decide(revision: str, strategy: Strategy, replicas: int, pods: Sequence[Replica]) -> Rollout:
    """The next step towards `replicas` pods of the revision `revision`."""
    live = [pod for pod in pods if not pod.over and not pod.going]
    of_revision = [pod for pod in live if pod.revision == revision]
    new = sorted(of_revision, key=lambda pod: (not pod.ready, pod.number))
    old = [pod for pod in live if pod.revision != revision]
    staying, surplus = new[:replicas], new[replicas:]
    leaving = old if strategy.recreate else _old_to_delete(strategy, replicas, staying, old)
    room = replicas + strategy.surge - len(staying) - len(old) + len(leaving)
    if strategy.recreate and any(pod.revision != revision and not pod.over for pod in pods):
        room = 0
    taken = {pod.number for pod in pods if pod.revision == revision}
    free = (number for number in range(len(taken) + replicas) if number not in taken)
    create = tuple(next(free) for _ in range(max(0, min(room, replicas - len(staying)))))
    return Rollout(create, tuple(pod.name for pod in [*surplus, *leaving]))


def _old_to_delete(
    strategy: Strategy, replicas: int, new: Sequence[Replica], old: Sequence[Replica]
) -> list[Replica]:
    at_least = replicas - min(strategy.unavailable, replicas)
    ready_new = sum(pod.ready for pod in new)
    ready_old = [pod for pod in old if pod.ready]
    most = len(new) + len(old) - at_least - (len(new) - ready_new)
    if most <= 0:
        return []
    unready = [pod for pod in old if not pod.ready][:most]
    return unready + ready_old[: max(0, ready_new + len(ready_old) - at_least)]
