"""Settings of the watcher beside the common ones."""

import re
from typing import Annotated, NotRequired, TypedDict

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from aimbus import HISTORY_MAX_BYTES
from aimcontroller.settings import ServiceSettings

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _names(value: object) -> object:
    """Raises ValueError for an invalid name of a namespace."""
    if not isinstance(value, str):
        return value
    names = dict.fromkeys(name for part in value.split(",") if (name := part.strip()))
    for name in names:
        if _NAMESPACE.fullmatch(name) is None:
            raise ValueError(
                f"{name!r} is no name of a namespace; write names with commas between them"
            )
    return tuple(names)


class Limits(TypedDict):
    """Limits of the streams: replicas of each, and bytes of AIM_LOG and of AIM_HISTORY."""

    replicas: int
    max_bytes: int
    history_max_bytes: NotRequired[int]


class WatcherSettings(ServiceSettings):
    nats_replicas: int = Field(default=1, ge=1, le=5)
    nats_max_bytes: int = Field(default=1 << 30, ge=1 << 20)  # of AIM_LOG
    nats_history_max_bytes: int = Field(default=HISTORY_MAX_BYTES, ge=1 << 20)  # of AIM_HISTORY
    namespaces: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_names)
    ] = ()  # served beside the control plane's own; empty: all of the cluster

    @property
    def limits(self) -> Limits:
        """The limits of the streams."""
        return Limits(
            replicas=self.nats_replicas,
            max_bytes=self.nats_max_bytes,
            history_max_bytes=self.nats_history_max_bytes,
        )

    @property
    def scope(self) -> tuple[str, ...]:
        """The namespaces to watch; empty means all. It includes the control plane's own, which has
        the config of pull secrets and the image results."""
        return tuple(dict.fromkeys((*self.namespaces, self.namespace))) if self.namespaces else ()
