"""Discovery has the settings every service has."""

from aimservice.settings import ServiceSettings


class DiscoverySettings(ServiceSettings):
    pass
