"""The statuswriter has the settings every service has."""

from aimcontroller.settings import ServiceSettings


class StatuswriterSettings(ServiceSettings):
    pass
