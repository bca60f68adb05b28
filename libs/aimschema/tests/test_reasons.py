"""Reasons and who reports what: one spelling each, and no two services on one field."""

import re
from itertools import combinations

import pytest

from aimschema import reasons
from aimschema.kinds import KINDS, Condition
from aimschema.resources import CONFIG, RESOURCES

CONSTANTS = {
    name: value
    for name, value in vars(reasons).items()
    if name.isupper() and isinstance(value, str)
}
SERVICES = {
    reasons.DISCOVERY,
    reasons.CACHER,
    reasons.DEPLOYER,
    reasons.ROUTER,
    reasons.STATUSWRITER,
    reasons.WATCHER,
}
REASONS = {name: value for name, value in CONSTANTS.items() if value not in SERVICES}
PATTERN = Condition.model_json_schema(by_alias=True)["properties"]["reason"]["pattern"]
STATUSES = {
    kind.__name__: kind.model_fields["status"] for kind in KINDS if "status" in kind.model_fields
}
DOCUMENTED = """
    ImageInspected Inspected ImageNotFound AuthError RegistryUnreachable MetadataMissing
    DuplicateName Discovered AwaitingDiscovery ModelNotFound ProfilesDiscovered DiscoveryFailed
    CacheWarm WarmRequested Warming Warm WarmFailed NoFailure StorageReady PVCPending
    PVCProvisioning PVCBound PVCLost StorageClassMissing InsufficientCapacity Filled
    WaitingForPVC Downloading Verifying RetryBackoff DownloadFailed SourceNotFound
    ChecksumMismatch DuplicateSource Resolved ValidationFailed TemplateNotFound
    RuntimeConfigMissing UnknownGPU CacheReady WaitingForCache CacheWarming CacheFailed
    CacheLost CacheNotRequested RuntimeReady RuntimeFailed CreatingRuntime RoutingReady
    RoutingDisabled RouteFailed
    ConfiguringRoute RouteReady NameConflict UnsupportedProfile
"""


@pytest.mark.parametrize(
    "reason", [pytest.param(value, id=name) for name, value in REASONS.items()]
)
def test_every_reason_is_camel_case_and_taken_by_the_crd(reason: str) -> None:
    assert re.fullmatch(r"([A-Z][a-z0-9]*)+", reason)
    assert re.fullmatch(PATTERN, reason)


@pytest.mark.parametrize("reason", DOCUMENTED.split())
def test_every_documented_reason_has_a_constant(reason: str) -> None:
    assert reason in REASONS.values()


def test_every_kind_with_a_status_has_contributors() -> None:
    assert (
        set(reasons.STATUS_OWNERSHIP)
        == set(STATUSES)
        == {kind.__name__ for kind in KINDS} - {CONFIG.kind}
    )
    assert set(reasons.STATUS_OWNERSHIP) <= set(RESOURCES)


@pytest.mark.parametrize("kind", list(reasons.STATUS_OWNERSHIP))
def test_no_two_services_report_the_same_thing(kind: str) -> None:
    for (types, fields), (other_types, other_fields) in combinations(
        reasons.STATUS_OWNERSHIP[kind].values(), 2
    ):
        assert not types & other_types
        assert not fields & other_fields


@pytest.mark.parametrize("kind", list(reasons.STATUS_OWNERSHIP))
def test_the_summary_belongs_to_the_statuswriter(kind: str) -> None:
    assert set(reasons.STATUS_OWNERSHIP[kind]) <= SERVICES - {reasons.STATUSWRITER, reasons.WATCHER}
    for types, fields in reasons.STATUS_OWNERSHIP[kind].values():
        assert not types & set(reasons.DERIVED)
        assert not fields & {"conditions", "observedGeneration", "status"}


@pytest.mark.parametrize("kind", list(reasons.STATUS_OWNERSHIP))
def test_every_field_of_a_status_is_somebodys(kind: str) -> None:
    """A field without an owner would never be written; one that is not in the CRD would be
    pruned."""
    model = next(k for k in KINDS if k.__name__ == kind)
    schema = model.model_json_schema(by_alias=True)
    status = next(
        definition for name, definition in schema["$defs"].items() if name == _status_type(kind)
    )
    owned = {field for _, fields in reasons.STATUS_OWNERSHIP[kind].values() for field in fields}
    assert owned == set(status["properties"]) - {"conditions", "observedGeneration", "status"}


def _status_type(kind: str) -> str:
    return {
        "AIMClusterModel": "ModelStatus",
        "AIMServiceTemplate": "TemplateStatus",
        "AIMService": "ServiceStatus",
        "ModelCache": "CacheStatus",
    }[kind]
