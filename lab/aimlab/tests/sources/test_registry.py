"""The lab's registry, as a client without any of our code sees it."""

import hashlib

import aiohttp
import pytest

from aimlab.sources.registry import INDEX, MANIFEST, SERVICE, Failure, Registry


async def test_content_is_served_by_tag_and_by_digest() -> None:
    async with Registry() as registry, aiohttp.ClientSession(trust_env=False) as client:
        digest = registry.put_image(
            "org/m", "1", {"a": "b"}, platforms=("linux/amd64", "linux/arm64")
        )
        for reference in ("1", digest):
            async with client.get(f"{registry.url}/v2/org/m/manifests/{reference}") as answer:
                body = await answer.read()
            assert (answer.content_type, answer.headers["Docker-Content-Digest"]) == (INDEX, digest)
            assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest
        async with client.get(f"{registry.url}/v2/org/m/manifests/1") as answer:
            first = (await answer.json(content_type=INDEX))["manifests"][0]
        async with client.get(f"{registry.url}/v2/org/m/manifests/{first['digest']}") as answer:
            config = (await answer.json(content_type=MANIFEST))["config"]
        async with client.get(f"{registry.url}/v2/org/m/blobs/{config['digest']}") as answer:
            assert (await answer.json(content_type=config["mediaType"]))["config"]["Labels"] == {
                "a": "b"
            }
        async with client.head(f"{registry.url}/v2/org/m/manifests/none") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("login", "scope", "token", "content"),
    [
        pytest.param(
            aiohttp.encode_basic_auth("ada", "right"), "repository:org/m:pull", 200, 200, id="known"
        ),
        pytest.param(
            aiohttp.encode_basic_auth("ada", "wrong"),
            "repository:org/m:pull",
            401,
            401,
            id="wrong-password",
        ),
        pytest.param(None, "repository:org/m:pull", 200, 401, id="anonymous"),
        pytest.param(
            aiohttp.encode_basic_auth("ada", "right"),
            "repository:org/other:pull",
            200,
            401,
            id="for-another-repository",
        ),
    ],
)
async def test_a_token_opens_what_it_was_issued_for(
    login: str | None, scope: str, token: int, content: int
) -> None:
    async with (
        Registry({"ada": "right"}) as registry,
        aiohttp.ClientSession(trust_env=False) as client,
    ):
        registry.put_image("org/m", "1", {})
        url = f"{registry.url}/v2/org/m/manifests/1"
        async with client.get(url) as answer:
            assert (
                f'realm="{registry.url}/token",service="{SERVICE}"'
                in answer.headers["WWW-Authenticate"]
            )
        identity = {} if login is None else {"Authorization": login}
        async with client.get(
            f"{registry.url}/token", params={"service": SERVICE, "scope": scope}, headers=identity
        ) as answer:
            assert answer.status == token
            issued = (await answer.json()).get("token", "")
        async with client.get(url, headers={"Authorization": f"Bearer {issued}"}) as answer:
            assert answer.status == content


async def test_it_fails_as_requested_and_returns_on_its_port() -> None:
    async with Registry() as registry, aiohttp.ClientSession(trust_env=False) as client:
        registry.put_image("org/m", "1", {})
        url = f"{registry.url}/v2/org/m/manifests/1"
        registry.failure = Failure(429, headers={"Retry-After": "7"})
        async with client.get(url) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        registry.failure = None
        await registry.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(url)
        await registry.start()
        async with client.get(url) as answer:
            assert answer.status == 200
