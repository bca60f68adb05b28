"""Options of a cache and its Jobs: settings of the cluster, and over them those of the cache's
config. Pure.

Of variables with one name the later wins: settings of the cluster, credentials of the config,
`caching.download.env` of the config, `spec.env` of the cache.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from aimcontroller.jobs import DEFAULT_RULES, JobRules
from aimschema import labels
from aimschema.credentials import credential_env
from aimschema.kinds import CABundle, ConfigSpec, DownloadOptions, EnvVar, Resources

Body = dict[str, Any]
NO_OPTIONS = DownloadOptions()


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a cache and its Jobs.

    `ca`: certificates in PEM form, `ca_bundle`: a ConfigMap of the namespace with such; the Jobs
    trust them beside the public ones. `env`: variables of the cluster's settings, name and value.
    `resources` replace those of `rules` and of the Job, by name. `include` and `exclude`: globs
    over file names; None: the downloader's own. `quota_bytes`: the storage of all caches of the
    cluster; None: no limit.
    """

    image: str
    rules: JobRules = DEFAULT_RULES
    ca: str = ""
    ca_bundle: CABundle | None = None
    env: tuple[tuple[str, str], ...] = ()
    service_account: str | None = None
    resources: Resources | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    quota_bytes: int | None = None

    @property
    def globs(self) -> list[Body]:
        """Variables of the downloader with the globs, as JSON lists."""
        named = {labels.ENV_INCLUDE: self.include, labels.ENV_EXCLUDE: self.exclude}
        return [
            {"name": name, "value": json.dumps(globs)}
            for name, globs in named.items()
            if globs is not None
        ]

    @property
    def fingerprint(self) -> list[str]:
        """What an attempt depends on besides the cache and its variables; empty by default."""
        options = {
            "caBundle": self.ca_bundle and self.ca_bundle.model_dump(),
            "serviceAccountName": self.service_account,
            "resources": self.resources and self.resources.model_dump(),
            "globs": self.globs or None,
        }
        chosen = {name: value for name, value in options.items() if value is not None}
        return [
            *([self.ca] if self.ca else []),
            *([json.dumps(chosen, sort_keys=True)] if chosen else []),
        ]


def options_of(config: ConfigSpec | None, cluster: JobOptions) -> JobOptions:
    """The options of the cluster, with what a config sets in their place. Its CA bundle replaces
    that of the cluster."""
    own = download_of(config)
    return replace(
        cluster,
        ca="" if own.ca_bundle is not None else cluster.ca,
        ca_bundle=own.ca_bundle,
        service_account=own.service_account_name or cluster.service_account,
        resources=own.resources if own.resources != Resources() else None,
        include=cluster.include if own.include is None else tuple(own.include),
        exclude=cluster.exclude if own.exclude is None else tuple(own.exclude),
    )


def download_of(config: ConfigSpec | None) -> DownloadOptions:
    caching = None if config is None else config.caching
    return NO_OPTIONS if caching is None or caching.download is None else caching.download


def download_env(config: ConfigSpec | None, own: list[EnvVar], cluster: JobOptions) -> list[Body]:
    """The variables in order, the cache's `own` ones last: `$(NAME)` refers to earlier variables
    only. A later variable replaces an earlier one of its name."""
    of_config = download_of(config).env or []
    ordered = [
        *({"name": name, "value": value} for name, value in cluster.env),
        *credential_env(config),
        *(each.model_dump(by_alias=True, exclude_none=True) for each in [*of_config, *own]),
    ]
    last = {variable["name"]: place for place, variable in enumerate(ordered)}
    return [each for place, each in enumerate(ordered) if last[each["name"]] == place]
