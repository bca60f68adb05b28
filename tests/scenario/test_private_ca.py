"""A store under a private CA: downloads trust it once the cacher is given the CA, and say what
is missing before."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from aim_testing.fault_catalogue.place import Place
from aimlab.certificates import Certificate, make_certificate
from aimlab.cli.environment import control_plane_on_laptop
from aimlab.sources.dialects import Dialect, dialect_store
from aimschema import names, reasons
from aimschema.resources import CACHE, CLAIM, CONFIG, CONFIG_MAP, NAMESPACE

pytestmark = pytest.mark.timeout(180)
FILES = {"org/model/weights.bin": b"x" * 1000, "org/model/notes.txt": b"y" * 50}
SOURCE = "s3://models/org/model"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("authority"), "our authority")


@contextlib.asynccontextmanager
async def cache_of_a_tls_store(
    authority: Certificate, folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[Place]:
    """A cache `c` without a size, of a store whose certificate the authority signed."""
    server = make_certificate(folder, "server", authority=authority)
    async with (
        dialect_store(Dialect(), FILES, tls=server.context()) as store,
        control_plane_on_laptop(folder, settings=settings) as stack,
    ):
        place = Place(stack, "private", folder)
        await stack.lab.cluster.create(
            {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": place.name}}
        )
        await place.secret("keys", id="an-access-key", secret="a-secret-key")
        keys = {
            "accessKeyId": {"name": "keys", "key": "id"},
            "secretAccessKey": {"name": "keys", "key": "secret"},
        }
        await place.make(
            CONFIG,
            "default",
            {"credentials": {"s3": [{"endpointUrl": store.endpoint_url, **keys}]}},
        )
        await place.make(CACHE, "c", {"sourceUri": SOURCE})
        yield place


async def test_with_the_ca_the_cache_fills(authority: Certificate, tmp_path: Path) -> None:
    """The size Job and the download both ask the store."""
    async with cache_of_a_tls_store(
        authority, tmp_path, {"AIM_CA_BUNDLE": str(authority.certificate)}
    ) as place:
        filled = await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
        assert (filled["status"]["sizeBytes"], filled["status"]["size"]) == (1050, "1Gi")
        bundle = await place.get(CONFIG_MAP, names.cache_ca("c"))
        assert bundle["data"] == {"ca.crt": authority.certificate.read_text()}
        await place.delete(CACHE, "c")
        await place.until_deleted(CONFIG_MAP, names.cache_ca("c"))
        await place.until_deleted(CLAIM, names.cache_claim("c"))


async def test_without_it_the_message_names_the_certificate(
    authority: Certificate, tmp_path: Path
) -> None:
    async with cache_of_a_tls_store(authority, tmp_path, {}) as place:
        await place.until_reported(
            CACHE,
            "c",
            reasons.FILLED,
            reasons.RETRY_BACKOFF,
            "certificate does not verify",
            "CA bundle",
        )
        await with_options_of_the_config(place, authority)


async def with_options_of_the_config(place: Place, authority: Certificate) -> None:
    """The namespace brings the CA itself; its new caches are on volumes of one node."""
    bundle = {
        "apiVersion": "v1",
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": "corporate", "namespace": place.name},
        "data": {"bundle.pem": authority.certificate.read_text()},
    }
    await place.stack.lab.cluster.create(bundle, resource=CONFIG_MAP)
    download = {
        "caBundle": {"configMapName": "corporate", "key": "bundle.pem"},
        "exclude": ["*.txt"],
        "resources": {"limits": {"memory": "2Gi"}},
    }
    caching = {"accessMode": "ReadWriteOnce", "download": download}
    await place.edit(CONFIG, "default", {"spec": {"caching": caching}})
    filled = await place.until_reported(CACHE, "c", reasons.FILLED, reasons.WARM)
    assert re.fullmatch(r"(sha256:)?[0-9a-f]{64}", filled["status"]["manifestDigest"])
    assert filled["status"]["sizeBytes"] == 1000
    await place.make(CACHE, "d", {"sourceUri": "s3://models/org", "storageClassName": "lab-wait"})
    await place.until_reported(CACHE, "d", reasons.FILLED, reasons.WARM)
    claim = await place.get(CLAIM, names.cache_claim("d"))
    assert (claim["spec"]["accessModes"], claim["status"]["phase"]) == (["ReadWriteOnce"], "Bound")
