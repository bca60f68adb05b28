"""The statuswriter has the settings every service has."""

from aimservice.settings import ServiceSettings


class StatuswriterSettings(ServiceSettings):
    pass
