"""The router has the settings every service has."""

from aimservice.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    pass
