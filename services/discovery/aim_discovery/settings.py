"""Discovery has the settings every service has, how long it waits after a failure, and whom it
trusts as registries."""

import ssl

from pydantic import Field, field_validator

from aim_discovery.attempts import LONGEST_RETRY_S
from aim_discovery.plan import FIRST_RETRY_S
from aimcontroller.settings import JobSettings


class DiscoverySettings(JobSettings):
    discovery_retry_s: float = Field(
        default=FIRST_RETRY_S, gt=0, le=LONGEST_RETRY_S
    )  # after a template's first failure; doubles up to an hour
    ca_bundle: str | None = (
        # path of a PEM file of CAs that vouch for registries, beside the system's; None or empty:
        # the system's alone
        None
    )

    @field_validator("ca_bundle")
    @classmethod
    def _has_certificates(cls, path: str | None) -> str | None:
        try:
            return path if path and ssl.create_default_context(cafile=path) else None
        except OSError as error:  # (an SSLError is one)
            raise ValueError(
                f"is no PEM file with certificates: {error.strerror or error}"
            ) from error
