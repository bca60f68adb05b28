"""Discovery has the settings every service has, and how long it waits after a failure."""

from pydantic import Field

from aim_discovery.plan import FIRST_RETRY_S, LONGEST_RETRY_S
from aimservice.settings import ServiceSettings


class DiscoverySettings(ServiceSettings):
    discovery_retry_s: float = Field(default=FIRST_RETRY_S, gt=0, le=LONGEST_RETRY_S)  # after a template's first failure; doubles up to an hour
