"""The five kinds of aim.silogen.ai/v1alpha1: the single source of the CRDs and of the types the
services use.

1. A field's constraints are in its annotation, so the CRD and the Python type cannot differ.
2. Rules that a schema cannot say are CEL (`rules`), each with a message that names the field and
   what to do.
3. Optional fields are absent, never null, when they are not set (Kubernetes API conventions).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aimschema.states import ServiceState, TemplateState

SOURCE_URI_PATTERN = r"^(hf|s3)://[^\s/]\S*$"
SERVICE_NAME_LENGTH = 48
CACHE_NAME_LENGTH = 54
IMMUTABLE_RULE = "self == oldSelf"
DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""GEP-2257, as in Gateway API."""
FORBIDDEN_DOWNLOAD_ENV = (
    "PYTHON.*|LD_.*|PATH|HOME|GCONV_PATH|GLIBC_TUNABLES|LOCPATH"
    "|OPENSSL_(CONF|CONF_INCLUDE|ENGINES|MODULES)|SSLKEYLOGFILE"
    "|AWS_(CONFIG_FILE|SHARED_CREDENTIALS_FILE|DATA_PATH)|BOTO_CONFIG|BASH_ENV|ENV"
)
"""Variables that load code into a download, name programs that return keys, or write keys to a
file: of the interpreter, the dynamic linker, the C library, OpenSSL, boto and shells."""
MOST_CONDITIONS = 32


def rule(expression: str, message: str, field_path: str | None = None) -> dict[str, str]:
    """One entry of x-kubernetes-validations (KEP-2876)."""
    return {
        "rule": expression,
        "message": message,
        **({} if field_path is None else {"fieldPath": field_path}),
    }


def validations(*rules: dict[str, str], **extra: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules), **extra}


def immutable(field: str, **extra: Any) -> dict[str, Any]:
    return validations(
        rule(IMMUTABLE_RULE, f"{field} is immutable: delete the object and create a new one"),
        **extra,
    )


MONOTONIC_GENERATION_RULE = rule(
    "!has(oldSelf.observedGeneration) || has(self.observedGeneration) && self.observedGeneration >="
    " oldSelf.observedGeneration",
    "observedGeneration must not decrease",
    ".observedGeneration",
)


class CamelModel(BaseModel):
    """Camel case on the wire; unknown fields are kept out, as the API server prunes them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        defer_build=True,  # a service validates few of the models
    )


QUANTITY_ABOVE_ZERO = (
    "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))"
)


def positive_quantity(field: str, example: str) -> dict[str, Any]:
    """An int-or-string that is a quantity greater than 0."""
    message = f"{field} must be a quantity greater than 0, such as {example}"
    return validations(rule(QUANTITY_ABOVE_ZERO, message), **{"x-kubernetes-int-or-string": True})


def list_map(key: str, **extra: Any) -> dict[str, Any]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key], **extra}


NonEmptyText: TypeAlias = Annotated[str, Field(min_length=1)]


class SecretKeySelector(CamelModel):
    """One key of a Secret in the same namespace."""

    name: NonEmptyText = Field(description="Name of the Secret.")
    key: NonEmptyText = Field(description="Key within the Secret.")
    optional: bool | None = Field(
        default=None, description="Whether the Secret or its key may be missing."
    )


class ConfigMapKeySelector(CamelModel):
    """One key of a ConfigMap in the same namespace."""

    name: NonEmptyText = Field(description="Name of the ConfigMap.")
    key: NonEmptyText = Field(description="Key within the ConfigMap.")
    optional: bool | None = Field(
        default=None, description="Whether the ConfigMap or its key may be missing."
    )


class FieldSelector(CamelModel):
    """A field of the pod."""

    api_version: str | None = Field(default=None, description="Version of the schema of the path.")
    field_path: NonEmptyText = Field(description="Path of the field, such as metadata.name.")


class ResourceFieldSelector(CamelModel):
    """A resource of a container."""

    container_name: str | None = Field(default=None, description="Name of the container.")
    resource: NonEmptyText = Field(description="Resource to select, such as limits.memory.")
    divisor: str | int | None = Field(
        default=None,
        description="Unit of the value.",
        json_schema_extra={"x-kubernetes-int-or-string": True},
    )


class EnvVarSource(CamelModel):
    """Where a variable's value comes from: one of these."""

    secret_key_ref: SecretKeySelector | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: ConfigMapKeySelector | None = Field(
        default=None, description="A key of a ConfigMap."
    )
    field_ref: FieldSelector | None = Field(default=None, description="A field of the pod.")
    resource_field_ref: ResourceFieldSelector | None = Field(
        default=None, description="A resource of a container."
    )


class EnvVar(CamelModel):
    """An environment variable: a value or the source of one."""

    name: NonEmptyText = Field(description="Name of the variable.")
    value: str | None = Field(default=None, description="Literal value.")
    value_from: EnvVarSource | None = Field(
        default=None, description="Source of the value; not together with value."
    )


class Condition(CamelModel):
    """A condition of an object (metav1.Condition, KEP-1623)."""

    model_config = ConfigDict(json_schema_extra=validations(MONOTONIC_GENERATION_RULE))

    type: NonEmptyText = Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the object that the condition is for."
    )
    last_transition_time: str = Field(
        description="Time of the last change of status.", json_schema_extra={"format": "date-time"}
    )
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="The reason as one CamelCase word.",
    )
    message: str = Field(max_length=32768, description="The reason in detail, and what to do.")


class Status(CamelModel):
    """What every status has."""

    model_config = ConfigDict(json_schema_extra=validations(MONOTONIC_GENERATION_RULE))

    observed_generation: int | None = Field(
        default=None,
        description=(
            "Generation of the spec that this status is for: the lowest of its contributors'."
        ),
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=MOST_CONDITIONS,
        description="Conditions, by type.",
        json_schema_extra=list_map("type"),
    )


class Metric(StrEnum):
    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Precision(StrEnum):
    AUTO = "auto"
    FP4 = "fp4"
    FP8 = "fp8"
    FP16 = "fp16"
    FP32 = "fp32"
    BF16 = "bf16"
    INT4 = "int4"
    INT8 = "int8"


class Column(CamelModel):
    """A column that kubectl get prints."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0


def column(name: str, path: str, type_: str = "string") -> Column:
    return Column(name=name, json_path=path, type=type_)


READY = column("Ready", '.status.conditions[?(@.type=="Ready")].status')
AGE = column("Age", ".metadata.creationTimestamp", "date")


class Kind(CamelModel):
    """A kind as users write it: `spec` and, where it has one, `status`."""

    columns: ClassVar[tuple[Column, ...]]
    rules: ClassVar[tuple[Mapping[str, str], ...]] = ()


class ModelSpec(CamelModel):
    name: NonEmptyText = Field(
        description=(
            "Canonical model name with version or revision, such as meta/llama-3-8b:1.1+20240915."
            " Templates and services refer to it."
        )
    )
    image: NonEmptyText = Field(
        description=("Container image that serves the model. Its labels list the runtime profiles.")
    )


class ModelStatus(Status):
    pass


class AIMClusterModel(Kind):
    """A cluster-wide catalogue entry: the image that serves a model."""

    columns = (column("Name", ".spec.name"), column("Image", ".spec.image"), READY, AGE)

    spec: ModelSpec
    status: ModelStatus | None = None


class S3Credential(CamelModel):
    """One S3 store and the keys to it."""

    endpoint_url: str | None = Field(
        default=None, description="URL of an S3-compatible store. Overrides region."
    )
    region: str | None = Field(default=None, description="AWS region.")
    access_key_id: SecretKeySelector | None = Field(
        default=None, description="Secret that holds the access key id."
    )
    secret_access_key: SecretKeySelector | None = Field(
        default=None, description="Secret that holds the secret access key."
    )
    addressing_style: Literal["path", "virtual", "auto"] | None = Field(
        default=None,
        description=(
            "Position of the bucket's name in a URL: path, virtual (before the host's name), or"
            " auto. Default: auto."
        ),
    )


class Credentials(CamelModel):
    """Secrets for getting at models, by reference."""

    hugging_face_token: SecretKeySelector | None = Field(
        default=None, description="Secret that holds the Hugging Face token."
    )
    s3: list[S3Credential] = Field(
        default=[],
        description="S3 stores, tried in this order.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class ImageConfig(CamelModel):
    """How AIM images are pulled."""

    image_pull_secrets: list[NonEmptyText] = Field(
        default=[],
        description="Names of the pull Secrets.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class GatewayReference(CamelModel):
    """The listener that routes attach to (Gateway API ParentReference)."""

    group: str = Field(default="gateway.networking.k8s.io", description="Group of the parent.")
    kind: NonEmptyText = Field(default="Gateway", description="Kind of the parent.")
    namespace: NonEmptyText | None = Field(
        default=None, description="Namespace of the parent. Default: the namespace of the route."
    )
    name: NonEmptyText = Field(max_length=253, description="Name of the parent.")
    section_name: NonEmptyText | None = Field(
        default=None, description="Listener of the gateway. Default: all listeners."
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Port of the listener.")


Hostname: TypeAlias = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=(r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ),
]
"""As in Gateway API: lower case, with a wildcard only as the first label."""


class RouteSettings(CamelModel):
    """What a service and its config can set on the route; the service wins field by field."""

    hostnames: list[Hostname] | None = Field(
        default=None,
        max_length=16,
        description="Host names of the route. Default: those of the listener.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    path_template: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^/",
        description=(
            "Path of the service on the gateway. It can have {.metadata.namespace},"
            " {.metadata.name}, {.metadata.uid} and {.metadata.labels['key']}. Default:"
            " /<namespace>/<workload id>."
        ),
    )
    request_timeout: str | None = Field(
        default=None,
        max_length=24,
        pattern=DURATION_PATTERN,
        description="Timeout of a request, such as 90s; 0s for none. Default: the gateway's.",
    )
    annotations: dict[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None,
        max_length=32,
        description="Annotations of the route.",
        json_schema_extra=validations(
            rule(
                "self.all(name, !name.startsWith('aim.silogen.ai/') &&"
                " !name.startsWith('kubectl.kubernetes.io/'))",
                "annotations must not begin with aim.silogen.ai/ or kubectl.kubernetes.io/",
            )
        ),
    )


class ServiceRouting(RouteSettings):
    """Whether and where a service is exposed."""

    enabled: bool | None = Field(
        default=None,
        description="Whether the service gets an HTTPRoute. Default: as the config has it.",
    )
    gateway: GatewayReference | None = Field(
        default=None, description="Gateway to attach to. Default: that of the config."
    )


class Routing(RouteSettings):
    """Whether and where services are exposed."""

    gateway: GatewayReference | None = Field(default=None, description="Gateway to attach to.")
    auto_create_route: bool = Field(
        default=True, description="Whether every service gets an HTTPRoute."
    )


class DownloadEnvVar(EnvVar):
    """A variable of every download. It cannot load code: who may write a config need not be
    allowed to run programs."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"!self.name.matches('^(?is:{FORBIDDEN_DOWNLOAD_ENV}|AIM_.*)$')",
                "download.env must not set variables that load code (PYTHON*, LD_*, PATH and"
                " their like) or begin with AIM_; remove the variable",
                ".name",
            )
        )
    )

    name: NonEmptyText = Field(max_length=128, description="Name of the variable.")
    value: str | None = Field(default=None, max_length=8192, description="Literal value.")


class CABundle(CamelModel):
    """A key of a ConfigMap in the same namespace with certificates in PEM form."""

    config_map_name: NonEmptyText = Field(max_length=253, description="Name of the ConfigMap.")
    key: NonEmptyText = Field(
        max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key within the ConfigMap."
    )


Amount: TypeAlias = Annotated[
    str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})
]
Amounts: TypeAlias = Annotated[
    dict[str, Amount],
    Field(
        max_length=3,
        json_schema_extra=validations(
            rule(
                "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",
                "resources must have only cpu, memory and ephemeral-storage",
            ),
            rule(
                "self.all(name, isQuantity(string(self[name])) &&"
                " !quantity(string(self[name])).isLessThan(quantity('0')))",
                "resources must be quantities of at least 0, such as 500m or 2Gi",
            ),
        ),
    ),
]


class Resources(CamelModel):
    """Requests and limits of one container."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(name,"
                " !(name in self.limits) || !isQuantity(string(self.requests[name])) ||"
                " !isQuantity(string(self.limits[name])) || !quantity(string(self.requests[name]))"
                ".isGreaterThan(quantity(string(self.limits[name]))))",
                "requests must not be greater than limits",
                ".requests",
            )
        )
    )

    requests: Amounts | None = Field(default=None, description="Requested amounts, by resource.")
    limits: Amounts | None = Field(default=None, description="Largest amounts, by resource.")


Glob: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class DownloadOptions(CamelModel):
    """Defaults for the downloads of a namespace."""

    env: list[DownloadEnvVar] | None = Field(
        default=None,
        max_length=64,
        description=(
            "Environment of every download, such as a mirror or a proxy. Overrides variables from"
            " credentials; spec.env of a ModelCache overrides both."
        ),
        json_schema_extra=list_map("name"),
    )
    ca_bundle: CABundle | None = Field(
        default=None,
        description="CAs of stores, hubs and proxies to trust in addition to the public ones.",
    )
    service_account_name: NonEmptyText | None = Field(
        default=None,
        max_length=253,
        description=(
            "Service account of download pods, for an identity that the cloud gives to pods. Its"
            " token is not mounted. Default: the namespace's default account."
        ),
    )
    resources: Resources | None = Field(
        default=None, description="Resources of the download container."
    )
    include: list[Glob] | None = Field(
        default=None,
        max_length=64,
        description="Globs over file names. Only matching files are downloaded. Default: all.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    exclude: list[Glob] | None = Field(
        default=None,
        max_length=64,
        description="Globs over file names. Matching files are not downloaded.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Caching(CamelModel):
    """How models are downloaded and how much storage their caches may take."""

    quota: str | int | None = Field(
        default=None,
        description=(
            "Storage of all caches of the namespace, such as 2Ti. A new cache that does not fit"
            " waits, or takes the place of unused ones. Only in the config default."
        ),
        json_schema_extra=positive_quantity("quota", "2Ti"),
    )
    evict_after: str | None = Field(
        default=None,
        pattern=DURATION_PATTERN,
        max_length=32,
        description=(
            "How long a cache that was created automatically may be unused before it is deleted,"
            " such as 720h. Only in the config default. Default: no limit."
        ),
        json_schema_extra=validations(
            rule("self.matches('[1-9]')", "evictAfter must be greater than 0, such as 720h")
        ),
    )
    download: DownloadOptions | None = Field(default=None, description="Defaults for downloads.")
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] | None = Field(
        default=None,
        description=(
            "Access mode of new cache volumes. With ReadWriteOnce only pods of one node can mount"
            " a cache. Default: ReadWriteMany."
        ),
    )


LabelValue: TypeAlias = Annotated[
    str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
]
LabelPattern: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=317, pattern=r"^([A-Za-z0-9][-A-Za-z0-9_./]*)?\*?$")
]


class LocalObjectReference(CamelModel):
    """An object in the same namespace, by name."""

    name: NonEmptyText = Field(max_length=253, description="Name of the object.")


class Toleration(CamelModel):
    """A taint that pods tolerate (core/v1 Toleration)."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.key) || has(self.operator) && self.operator == 'Exists'",
                "a toleration without key must have operator Exists: it tolerates every taint",
                ".operator",
            ),
            rule(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) ||"
                " self.value == ''",
                "a toleration with operator Exists must not have a value; remove the value",
                ".value",
            ),
            rule(
                "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
                "tolerationSeconds must have effect NoExecute",
                ".tolerationSeconds",
            ),
        )
    )

    key: NonEmptyText | None = Field(
        default=None, max_length=317, description="Key of the taint. Default: every key."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Exists or Equal. Default: Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, description="Seconds until a NoExecute taint evicts. Default: never."
    )


Capability: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]


class DroppedCapabilities(CamelModel):
    """Linux capabilities that a container does without (core/v1 Capabilities)."""

    drop: list[Capability] | None = Field(
        default=None,
        max_length=64,
        description="Capabilities to drop; ALL drops every one.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class SeccompProfile(CamelModel):
    """A seccomp profile (core/v1 SeccompProfile)."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.localhostProfile) == (self.type == 'Localhost')",
                "localhostProfile must be set with type Localhost, and only with it",
                ".localhostProfile",
            )
        )
    )

    type: Literal["RuntimeDefault", "Localhost", "Unconfined"] = Field(
        description="RuntimeDefault, Localhost or Unconfined."
    )
    localhost_profile: NonEmptyText | None = Field(
        default=None, max_length=1024, description="Profile on the node."
    )


NumericId: TypeAlias = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
"""A user or group id, as the API server admits them in pods."""


class CommonSecurity(CamelModel):
    """What the security contexts of pods and containers have in common.

    Fields that give more rights than a model server needs are left out: the admission policies of
    the chart do not let the deployer set them either.
    """

    run_as_user: NumericId | None = Field(default=None, description="User id of the processes.")
    run_as_group: NumericId | None = Field(default=None, description="Group id of the processes.")
    run_as_non_root: bool | None = Field(
        default=None, description="Whether the kubelet refuses to run the image as root."
    )
    seccomp_profile: SeccompProfile | None = Field(default=None, description="Seccomp profile.")


class SecurityContext(CommonSecurity):
    """Security context of the model server's container (core/v1 SecurityContext)."""

    allow_privilege_escalation: bool | None = Field(
        default=None, description="Whether a process may gain more privileges than its parent."
    )
    read_only_root_filesystem: bool | None = Field(
        default=None, description="Whether the root file system is read-only."
    )
    capabilities: DroppedCapabilities | None = Field(
        default=None, description="Linux capabilities."
    )


class PodSecurityContext(CommonSecurity):
    """Security context of the model server's pods (core/v1 PodSecurityContext)."""

    fs_group: NumericId | None = Field(default=None, description="Group id of volumes.")
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = Field(
        default=None, description="When the group of a volume is changed."
    )
    supplemental_groups: list[NumericId] | None = Field(
        default=None,
        max_length=64,
        description="Further group ids of the processes, such as that of the GPU devices.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class PodEnvVar(EnvVar):
    """A variable of the model server."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.valueFrom) || !has(self.value) || self.value == ''",
                "a variable must not have both value and valueFrom; remove one",
                ".valueFrom",
            ),
            rule(
                "!has(self.valueFrom) || [has(self.valueFrom.secretKeyRef),"
                " has(self.valueFrom.configMapKeyRef), has(self.valueFrom.fieldRef),"
                " has(self.valueFrom.resourceFieldRef)].filter(given, given).size() == 1",
                "valueFrom must have exactly one source: secretKeyRef, configMapKeyRef, fieldRef or"
                " resourceFieldRef",
                ".valueFrom",
            ),
        )
    )

    name: NonEmptyText = Field(
        max_length=256, pattern=r"^[ -<>-~]+$", description="Name of the variable."
    )
    value: str | None = Field(default=None, max_length=32768, description="Literal value.")


class PodSettings(CamelModel):
    """Settings of a model server's pods."""

    env: list[PodEnvVar] = Field(
        default=[],
        max_length=128,
        description="Environment of the model server. Overrides the variables of the profile.",
        json_schema_extra=list_map("name"),
    )
    resources: Resources | None = Field(
        default=None,
        description=(
            "CPU, memory and ephemeral storage of one replica. Default: by the number of GPUs."
        ),
    )
    image_pull_secrets: list[LocalObjectReference] = Field(
        default=[],
        max_length=32,
        description="Pull Secrets, in addition to those of the config.",
        json_schema_extra=list_map("name"),
    )
    service_account_name: NonEmptyText | None = Field(
        default=None,
        max_length=253,
        description="Service account. Its token is mounted only if it is named here.",
    )
    priority_class_name: NonEmptyText | None = Field(
        default=None, max_length=253, description="Priority class."
    )
    tolerations: list[Toleration] = Field(
        default=[],
        max_length=32,
        description="Tolerations, in addition to those for GPU nodes.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    node_selector: dict[str, LabelValue] = Field(
        default={},
        max_length=32,
        description="Labels that nodes must have, in addition to that of the GPU model.",
    )
    security_context: SecurityContext | None = Field(
        default=None, description="Security context of the container."
    )
    pod_security_context: PodSecurityContext | None = Field(
        default=None, description="Security context of the pods."
    )


class LabelPropagation(CamelModel):
    """Labels that objects pass on to what is created for them."""

    enabled: bool | None = Field(
        default=None, description="Whether labels are passed on. Default: whether match is set."
    )
    match: list[LabelPattern] | None = Field(
        default=None,
        max_length=32,
        description="Names of labels to pass on; `*` at the end stands for any further text.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class ConfigSpec(CamelModel):
    credentials: Credentials | None = Field(
        default=None, description="Credentials for discovery and caching."
    )
    images: ImageConfig | None = Field(
        default=None, description="How AIM images are pulled in this namespace."
    )
    routing: Routing | None = Field(
        default=None,
        description="How services of this namespace are exposed. Default: not exposed.",
    )
    cache_storage_class_name: NonEmptyText | None = Field(
        default=None, description="Storage class of cache volumes. Default: the cluster's default."
    )
    caching: Caching | None = Field(
        default=None, description="How models of this namespace are cached."
    )
    runtime: PodSettings | None = Field(
        default=None, description="Settings of the pods of every service of this namespace."
    )
    label_propagation: LabelPropagation | None = Field(
        default=None, description="Labels that objects pass on to what is created for them."
    )


class AIMNamespaceConfig(Kind):
    """Credentials, pull secrets and routing of a namespace."""

    columns = (
        column("Gateway", ".spec.routing.gateway.name"),
        column("Auto route", ".spec.routing.autoCreateRoute", "boolean"),
        AGE,
    )

    spec: ConfigSpec = ConfigSpec()


class TemplateSpec(CamelModel):
    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.tensorParallelism <= self.gpusPerReplica",
                "tensorParallelism must not be greater than gpusPerReplica: a replica has only so"
                " many GPUs",
                ".tensorParallelism",
            )
        )
    )

    model: NonEmptyText = Field(
        description="Model by its canonical name (spec.name of an AIMClusterModel). Immutable.",
        json_schema_extra=immutable("model"),
    )
    metric: Metric = Field(
        description="Optimisation goal. Immutable.", json_schema_extra=immutable("metric")
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="Numeric precision. Immutable.",
        json_schema_extra=immutable("precision"),
    )
    gpus_per_replica: int = Field(
        ge=1,
        description="GPUs of one replica. Immutable.",
        json_schema_extra=immutable("gpusPerReplica"),
    )
    gpu_model: NonEmptyText = Field(
        description="GPU card, such as MI300X. Immutable.", json_schema_extra=immutable("gpuModel")
    )
    tensor_parallelism: int = Field(
        ge=1,
        description="Number of GPUs that the model is split over. Immutable.",
        json_schema_extra=immutable("tensorParallelism"),
    )
    warm_cache: bool = Field(
        default=False,
        description=(
            "Whether to cache the model as soon as it is discovered, before a service requests it."
        ),
    )


class Profile(CamelModel):
    """The runtime profile that discovery found."""

    engine: str | None = Field(default=None, description="Inference engine.")
    gpu: str | None = Field(default=None, description="GPU card.")
    precision: str | None = Field(default=None, description="Numeric precision.")
    gpu_count: int | None = Field(
        default=None, alias="gpu_count", description="GPUs of one replica."
    )
    metric: str | None = Field(default=None, description="Optimisation goal.")


class RetryStatus(Status):
    """What is tried again keeps its count here, so that it survives restarts."""

    attempts: int | None = Field(default=None, ge=0, description="Consecutive failed attempts.")
    next_attempt_time: str | None = Field(
        default=None,
        description="Time of the next attempt.",
        json_schema_extra={"format": "date-time"},
    )


class TemplateStatus(RetryStatus):
    status: TemplateState = Field(default=TemplateState.PENDING, description="State as one word.")
    model_sources: list[str] = Field(
        default=[],
        description="Sources of the models this template runs.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    profile: Profile | None = Field(
        default=None, description="Runtime profile that discovery found."
    )


class AIMServiceTemplate(Kind):
    """A runtime profile of a model, and the GPUs it runs on."""

    columns = (
        column("Model", ".spec.model"),
        column("Metric", ".spec.metric"),
        column("Precision", ".spec.precision"),
        column("GPUs", ".spec.gpusPerReplica", "integer"),
        column("GPU", ".spec.gpuModel"),
        column("TP", ".spec.tensorParallelism", "integer"),
        column("Status", ".status.status"),
        AGE,
    )

    spec: TemplateSpec
    status: TemplateStatus | None = None


class ServiceIdentity(CamelModel):
    """What a service runs, and how often."""

    model: NonEmptyText = Field(
        description="Model by its canonical name (spec.name of an AIMClusterModel)."
    )
    template_ref: NonEmptyText = Field(
        description="Name of the AIMServiceTemplate in the same namespace."
    )
    cache_model: bool = Field(
        default=True, description="Whether to cache the model before the service starts."
    )
    replicas: int = Field(default=1, ge=0, description="Number of replicas; 0 stops the service.")
    config_ref: NonEmptyText = Field(
        default="default", description="Name of the AIMNamespaceConfig in the same namespace."
    )


class ServiceSpec(PodSettings, ServiceIdentity):
    """What a service runs, the settings of its pods, and how it is exposed."""

    routing: ServiceRouting | None = Field(
        default=None, description="How the service is exposed. Default: as the config has it."
    )


class ServiceStatus(Status):
    status: ServiceState = Field(default=ServiceState.PENDING, description="State as one word.")
    path: str | None = Field(default=None, description="Path of the service on the gateway.")
    url: str | None = Field(default=None, description="Address of the service on the gateway.")
    resolved_template: str | None = Field(
        default=None, description="Template of the running service."
    )
    ready_replicas: int | None = Field(default=None, ge=0, description="Ready replicas.")


class AIMService(Kind):
    """A running model service."""

    columns = (
        column("Model", ".spec.model"),
        column("Template", ".spec.templateRef"),
        column("Replicas", ".spec.replicas", "integer"),
        column("Status", ".status.status"),
        AGE,
    )
    rules = (
        rule(
            f"self.metadata.name.size() <= {SERVICE_NAME_LENGTH} &&"
            " self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"metadata.name must be at most {SERVICE_NAME_LENGTH} lower-case letters, digits and"
            " '-', start with a letter and end with a letter or digit: KServe uses it in host"
            " names",
        ),
    )

    spec: ServiceSpec
    status: ServiceStatus | None = None


class CacheSpec(CamelModel):
    source_uri: str = Field(
        min_length=1,
        max_length=1024,
        description=(
            "Where the model comes from: hf://owner/name[@revision] or s3://bucket/prefix."
            " Immutable."
        ),
        # of the CRD only: `\s` of the API server is ASCII, that of pydantic Unicode
        json_schema_extra={"pattern": SOURCE_URI_PATTERN, **immutable("sourceUri")},
    )
    storage_class_name: NonEmptyText | None = Field(
        default=None, description="Storage class of the volume."
    )
    size: str | int | None = Field(
        default=None,
        description="Size of the volume. Default: determined from the source.",
        json_schema_extra=positive_quantity("size", "20Gi"),
    )
    env: list[EnvVar] = Field(
        default=[],
        description="Environment of the download. Overrides variables from credentials.",
        json_schema_extra=list_map("name"),
    )


class CacheStatus(RetryStatus):
    status: TemplateState = Field(default=TemplateState.PENDING, description="State as one word.")
    last_used: str | None = Field(
        default=None,
        description="Time when a service last started with this cache.",
        json_schema_extra={"format": "date-time"},
    )
    persistent_volume_claim: str | None = Field(
        default=None, description="Name of the PersistentVolumeClaim with the files."
    )
    size: str | None = Field(
        default=None, description="Size of the PersistentVolumeClaim, such as 20Gi."
    )
    progress: str | None = Field(default=None, description="Downloaded part, such as 43%.")
    size_bytes: int | None = Field(
        default=None, ge=0, description="Size of the files.", json_schema_extra={"format": "int64"}
    )
    revision: str | None = Field(default=None, description="Revision of the source that is cached.")
    manifest_digest: str | None = Field(
        default=None,
        max_length=128,
        description="sha256 of the manifest that lists the files with their checksums.",
    )


class ModelCache(Kind):
    """A model's files on a volume."""

    columns = (
        column("Source", ".spec.sourceUri"),
        column("Size", ".status.size"),
        column("Status", ".status.status"),
        column("Progress", ".status.progress"),
        column("PVC", ".status.persistentVolumeClaim"),
        AGE,
    )
    rules = (
        rule(
            f"self.metadata.name.size() <= {CACHE_NAME_LENGTH}",
            f"metadata.name must be at most {CACHE_NAME_LENGTH} characters: the names of its claim"
            " and Jobs contain it",
        ),
    )

    spec: CacheSpec
    status: CacheStatus | None = None


KINDS: tuple[type[Kind], ...] = (
    AIMClusterModel,
    AIMNamespaceConfig,
    AIMServiceTemplate,
    AIMService,
    ModelCache,
)
