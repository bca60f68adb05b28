"""The router has the settings every service has."""

from aimcontroller.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    pass
