"""Settings of the watcher beyond those every service has."""

from pydantic import Field

from aimservice.settings import ServiceSettings


class WatcherSettings(ServiceSettings):
    nats_replicas: int = Field(default=1, ge=1, le=5)
    nats_max_bytes: int = Field(default=1 << 30, ge=1 << 20)  # of AIM_LOG
