"""Faults of volumes and downloads, reported on the cache. Those of sources and credentials are in
tests/scenario/test_sources.py."""

from typing import Any

from aim_testing.fault_catalogue.case import EVENT, Case, Expected, Step
from aim_testing.fault_catalogue.place import KEYS, Place
from aimctl.local.ports import free_ports
from aimlab.kinds import VOLUME
from aimschema import labels, names, reasons
from aimschema.resources import CACHE, CLAIM, CONFIG, SERVICE

WARM = Expected(CACHE, "c", reasons.FILLED, reasons.WARM)
CLAIM_NAME = names.cache_claim("c")


def storage(reason: str, *fragments: str) -> Expected:
    return Expected(CACHE, "c", reasons.STORAGE_READY, reason, fragments)


def filled(reason: str, *fragments: str) -> Expected:
    return Expected(CACHE, "c", reasons.FILLED, reason, fragments)


def cache_with(**spec: Any) -> Step:
    """A source that is there, and a cache for it."""

    async def cause(place: Place) -> None:
        await place.config()
        await place.put_source()
        await place.cache(**{"size": "1Gi", **spec})

    return cause


async def foreign_provisioner(place: Place) -> None:
    await cache_with(storageClassName=await place.slow_class())(place)


async def volume_lost(place: Place) -> None:
    await cache_with()(place)
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
    claim = await place.get(CLAIM, CLAIM_NAME)
    await place.stack.lab.cluster.merge_patch(
        VOLUME, None, claim["spec"]["volumeName"], {"metadata": {"finalizers": []}}
    )
    await place.stack.lab.cluster.delete(VOLUME, None, claim["spec"]["volumeName"])


async def recreated(place: Place) -> None:
    await place.delete(CACHE, "c")
    await place.until_deleted(CACHE, "c")
    await place.cache(size="1Gi")


async def size_raised(place: Place) -> None:
    await cache_with()(place)
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
    await place.edit(CACHE, "c", {"spec": {"size": "3Gi"}})


async def store_away(place: Place) -> None:
    """The S3 endpoint of the config is a closed port."""
    store = {
        "endpointUrl": f"http://127.0.0.1:{free_ports(1)[0]}",
        "accessKeyId": {"name": KEYS, "key": "id"},
    }
    await place.config(
        credentials={"s3": [store | {"secretAccessKey": {"name": KEYS, "key": "secret"}}]}
    )
    await place.put_source()
    await place.cache(size="1Gi")


async def store_back(place: Place) -> None:
    await place.delete(CONFIG, "default")
    await place.config()


async def claim_of_another_owner(place: Place) -> None:
    await place.make(
        CLAIM,
        CLAIM_NAME,
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    )
    await cache_with()(place)


async def two_caches(place: Place) -> None:
    """The younger is `c`; creation times count in seconds, then names do."""
    await place.config()
    await place.put_source()
    await place.cache("a", size="1Gi")
    await place.cache("c", size="1Gi")


async def named_config_missing(place: Place) -> None:
    await place.config()
    await place.put_source()
    await place.make(
        CACHE,
        "c",
        {"sourceUri": place.source, "size": "1Gi"},
        annotations={labels.ANNOTATION_CONFIG: "team"},
    )


async def secret_missing(place: Place) -> None:
    key = {"name": "later", "key": "id"}
    store = {
        "endpointUrl": place.stack.lab.s3.endpoint_url,
        "accessKeyId": key,
        "secretAccessKey": {"name": "later", "key": "secret"},
    }
    await place.config(credentials={"s3": [store]})
    await place.put_source()
    await place.cache(size="1Gi")


async def secret_arrives(place: Place) -> None:
    keys = place.stack.lab.s3.admin
    await place.secret("later", id=keys.access_key, secret=keys.secret_key)


async def class_of_the_config_missing(place: Place) -> None:
    await place.config(cacheStorageClassName="unheard-of")
    await place.put_source()
    await place.cache(size="1Gi")


async def source_that_reads_like_a_variable(place: Place) -> None:
    """Were it the variable's value, the token would go to the hub and stand in the message."""
    await place.secret("hf", token="hf_never_to_be_seen")
    await place.config(credentials={"huggingFaceToken": {"name": "hf", "key": "token"}})
    await place.make(CACHE, "c", {"sourceUri": "hf://org/$(HF_TOKEN)", "size": "1Gi"})


async def claim_deleted_under_a_download(place: Place) -> None:
    """Its pod waits for a Secret, and mounts the claim."""
    await secret_missing(place)
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.DOWNLOADING, "later")
    first = await place.get(CLAIM, CLAIM_NAME)
    await place.delete(CLAIM, CLAIM_NAME)
    await place.until(
        CLAIM,
        CLAIM_NAME,
        lambda claim: claim["metadata"]["uid"] != first["metadata"]["uid"],
        "another uid",
    )


async def claim_held(place: Place) -> None:
    """A service runs on the volume whose claim is deleted."""
    await place.config()
    await place.put_source()
    await place.model()
    await place.template()
    await place.cache(size="1Gi")
    await place.service(cacheModel=True)
    await place.until_reported(SERVICE, "s", reasons.READY, reasons.RUNNING)
    await place.delete(CLAIM, CLAIM_NAME)


async def loader_in_the_environment(place: Place) -> None:
    """Were it passed on, the downloader would run what lies on the volume."""
    await place.config()
    await place.put_source()
    await place.cache(size="1Gi", env=[{"name": "PYTHONPATH", "value": "/cache"}])


async def quota_full(place: Place) -> None:
    """A user's cache has all of the quota; the next one is for a service."""
    await place.config(caching={"quota": "1Gi"})
    await place.make(CACHE, "a", {"sourceUri": "s3://elsewhere/a", "size": "1Gi"})
    await place.until(CLAIM, names.cache_claim("a"), lambda _: True, "created")
    await place.put_source()
    await place.model()
    await place.template()
    await place.cache(size="1Gi")
    await place.service(cacheModel=True)


async def cache_not_used(place: Place) -> None:
    """One that the control plane created, as its label has it; another asks for its storage."""
    await place.config(caching={"quota": "1Gi"})
    await place.put_source()
    spec = {"sourceUri": place.source, "size": "1Gi"}
    await place.make(CACHE, "c", spec, labels={labels.MANAGED_BY: labels.MANAGED_BY_AIM})
    await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
    await place.make(CACHE, "d", {"sourceUri": "s3://elsewhere/d", "size": "1Gi"})


async def quota_in_another_config(place: Place) -> None:
    await cache_with()(place)
    await place.config("team", caching={"quota": "1Gi"})


def config_warned(reason: str, *fragments: str) -> Expected:
    return Expected(CONFIG, "default", EVENT, reason, fragments)


CASES = (
    Case(
        "classless",
        "the storage class does not exist",
        cache_with(storageClassName="classless"),
        (storage(reasons.STORAGE_CLASS_MISSING, "classless"), filled(reasons.WAITING_FOR_PVC)),
        lambda place: place.storage_class("classless"),
        WARM,
    ),
    Case(
        "unprovisioned",
        "no provisioner creates the volume",
        foreign_provisioner,
        (storage(reasons.PVC_PROVISIONING),),
        Place.volume_arrives,
        WARM,
    ),
    Case(
        "volume-lost",
        "the volume is deleted",
        volume_lost,
        (storage(reasons.PVC_LOST, "delete ModelCache c"),),
        recreated,
        WARM,
    ),
    Case(
        "too-small",
        "the requested size is raised",
        size_raised,
        (storage(reasons.INSUFFICIENT_CAPACITY, "3Gi", "1Gi"),),
        lambda place: place.edit(CACHE, "c", {"spec": {"size": "1Gi"}}),
        storage(reasons.PVC_BOUND),
    ),
    Case(
        "store-away",
        "the S3 server cannot be reached",
        store_away,
        (filled(reasons.RETRY_BACKOFF, "try 1"),),
        store_back,
        WARM,
    ),
    Case(
        "claimed",
        "a foreign PVC has the name",
        claim_of_another_owner,
        (storage(reasons.NAME_CONFLICT, CLAIM_NAME),),
        lambda place: place.delete(CLAIM, CLAIM_NAME),
        WARM,
    ),
    Case(
        "duplicate-source",
        "two caches have the same source",
        two_caches,
        (filled(reasons.DUPLICATE_SOURCE, "ModelCache a is older"),),
        lambda place: place.delete(CACHE, "a"),
        WARM,
    ),
    Case(
        "config-awaited",
        "the config that the cache names is missing",
        named_config_missing,
        (filled(reasons.RUNTIME_CONFIG_MISSING, "team"), storage(reasons.PVC_PENDING)),
        lambda place: place.config("team"),
        WARM,
    ),
    Case(
        "secret-awaited",
        "the Secret with the keys is missing",
        secret_missing,
        (
            filled(reasons.DOWNLOADING, "CreateContainerConfigError", "later"),
            config_warned(reasons.SECRET_MISSING, "s3[0].accessKeyId", "later"),
        ),
        secret_arrives,
        WARM,
    ),
    Case(
        "config-classless",
        "the storage class that the config names does not exist",
        class_of_the_config_missing,
        (
            storage(reasons.STORAGE_CLASS_MISSING, "unheard-of"),
            config_warned(reasons.STORAGE_CLASS_MISSING, "spec.cacheStorageClassName"),
        ),
        lambda place: place.storage_class("unheard-of"),
        WARM,
    ),
    Case(
        "claim-deleted",
        "the PVC is deleted while its download cannot start",
        claim_deleted_under_a_download,
        (filled(reasons.DOWNLOADING, "CreateContainerConfigError", "later"),),
        store_back,
        WARM,
    ),
    Case(
        "literal-secret",
        "the cache's env contains a secret value",
        cache_with(env=[{"name": "OTHER_TOKEN", "value": "hunter2"}]),
        (Expected(CACHE, "c", EVENT, reasons.LITERAL_SECRET, ("OTHER_TOKEN", "secretKeyRef")),),
    ),
    Case(
        "large-spec",
        "the cache's spec does not fit into a NATS message",
        cache_with(env=[{"name": "NOTE", "value": "x" * 1_100_000}]),
        (Expected(CACHE, "c", EVENT, reasons.SPEC_TOO_LARGE, ("less than 900 kB",)),),
        lambda place: place.edit(CACHE, "c", {"spec": {"env": []}}),
        WARM,
    ),
    Case(
        "claim-held",
        "the PVC is deleted while a service uses it",
        claim_held,
        (
            storage(
                reasons.PVC_TERMINATING, "of AIMService s", "set spec.replicas of AIMService s to 0"
            ),
            Expected(CACHE, "c", reasons.FAILURE, reasons.PVC_TERMINATING, ("AIMService s",)),
            Expected(
                SERVICE,
                "s",
                reasons.CACHE_READY,
                reasons.CACHE_LOST,
                ("set spec.replicas of AIMService s to 0",),
            ),
        ),
        lambda place: place.edit(SERVICE, "s", {"spec": {"replicas": 0}}),
        WARM,
    ),
    Case(
        "loader",
        "a cache sets a variable that loads code",
        loader_in_the_environment,
        (Expected(CACHE, "c", EVENT, reasons.ENV_IGNORED, ("spec.env PYTHONPATH",)),),
        lambda place: place.edit(CACHE, "c", {"spec": {"env": []}}),
        WARM,
    ),
    Case(
        "quota-full",
        "the namespace's quota for caches is used up",
        quota_full,
        (
            filled(reasons.QUOTA_EXCEEDED, "caching.quota", "1Gi", "held by a"),
            Expected(CACHE, "c", reasons.FAILURE, reasons.QUOTA_EXCEEDED, ("raise the quota",)),
            Expected(SERVICE, "s", reasons.CACHE_READY, reasons.CACHE_FAILED, ("ModelCache c",)),
        ),
        lambda place: place.delete(CACHE, "a"),
        WARM,
    ),
    Case(
        "evicting",
        "a cache that is not used has to make room for another",
        cache_not_used,
        (storage(reasons.EVICTING, "not used", "aim.silogen.ai/evict"),),
        lambda place: place.edit(
            CACHE, "c", {"metadata": {"annotations": {labels.ANNOTATION_EVICT: "never"}}}
        ),
        storage(reasons.PVC_BOUND),
    ),
    Case(
        "quota-elsewhere",
        "a quota is set in another config than default",
        quota_in_another_config,
        (Expected(CONFIG, "team", EVENT, reasons.QUOTA_IGNORED, ("spec.caching.quota",)),),
    ),
    Case(
        "variable",
        "a source contains a variable",
        source_that_reads_like_a_variable,
        (filled(reasons.SOURCE_NOT_FOUND, "$(HF_TOKEN)"),),
    ),
)
