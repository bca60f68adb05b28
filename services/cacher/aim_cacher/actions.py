"""The actions that only the cacher has. Pure."""

from dataclasses import dataclass
from typing import Any, ClassVar

from aimcontroller.action import Action
from aimschema.resources import CLAIM, Key


@dataclass(frozen=True, slots=True)
class FollowLog(Action):
    """Follow the progress lines of a running container; each is `Observation(about, PROGRESS,
    ...)`."""

    verb: ClassVar[str] = "follow-log"
    pod: Key
    uid: str
    container: str
    about: Key

    @property
    def summary(self) -> str:
        return f"follow log of {self.pod.name}"


@dataclass(frozen=True, slots=True)
class CreateClaim(Action):
    """Create a volume claim if the storage of all claims of caches, as the API server has them,
    leaves room for it under both quotas. None: no quota. `namespaces`: all with caches."""

    verb: ClassVar[str] = "create-claim"
    body: dict[str, Any]
    namespace_bytes: int | None
    cluster_bytes: int | None
    namespaces: tuple[str, ...]

    @property
    def target(self) -> Key:
        metadata = self.body["metadata"]
        return Key(CLAIM.kind, metadata["namespace"], metadata["name"])

    @property
    def summary(self) -> str:
        return f"create PersistentVolumeClaim {self.target.name}"


@dataclass(frozen=True, slots=True)
class EvictCache(Action):
    """Delete a cache that still has this mark and that nothing uses, as the API server has it; else
    remove the mark. `templates`: those that name its source."""

    verb: ClassVar[str] = "evict"
    key: Key
    uid: str
    mark: str
    source: str
    templates: frozenset[str]
    cause: str

    @property
    def target(self) -> Key:
        return self.key
