"""Settings of the cacher beyond those every service has."""

from aimservice.settings import ServiceSettings


class CacherSettings(ServiceSettings):
    downloader_image: str = "ghcr.io/silogen/aim-downloader:0.1.0"
