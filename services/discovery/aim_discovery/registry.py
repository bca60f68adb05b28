"""Reading an image's config from its registry: OCI distribution API and docker's token authentication (docs/adr/0016 says why it is our own).

1. Nothing is believed: sizes and times are bounded, manifests and configs are checked against their digests.
2. http only where registry and target are both on loopback; credentials go to the registry and to the token server it names, never after a redirect
   to another origin.
3. No layer is pulled.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from aim_discovery.challenge import challenges, choose
from aim_discovery.image import Image, is_digest, is_loopback
from aim_discovery.keyring import Credentials
from aimschema import reasons

LARGEST_MANIFEST_BYTES = 4 << 20
LARGEST_CONFIG_BYTES = 8 << 20
LARGEST_ANSWER_BYTES = 64 << 10
"""Of a token server or an error."""
MOST_REDIRECTS = 5
MOST_NESTED = 3
REQUEST_S = 30.0
CONNECT_S = 10.0
IMAGE_S = 90.0
INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
OS, ARCHITECTURE = "linux", "amd64"
_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))


class RegistryProblem(Exception):
    """Why an image cannot be inspected: `reason` of ImageInspected, and for how long the registry asks to be left alone."""

    def __init__(self, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """`digest` is what the reference stood for: of the index where there is one."""

    digest: str
    labels: dict[str, Any]


class Registries:
    """Registries as discovery reads them. For one event loop; close it (or use it as a context) when done."""

    def __init__(self, *, image_s: float = IMAGE_S) -> None:
        """`image_s`: how long one image may take in all."""
        self._image_s = image_s
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, connect=CONNECT_S)
        no_cookies = aiohttp.DummyCookieJar()  # (a session that one identity opened must not let in the next)
        self._session = aiohttp.ClientSession(trust_env=False, timeout=timeout, cookie_jar=no_cookies, headers={"User-Agent": "aim-discovery"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def config_of(self, image: Image, credentials: Sequence[Credentials]) -> ImageConfig:
        """The config for linux/amd64, asked for with each of the credentials in turn, anonymously where there are none. Raises RegistryProblem."""
        try:
            async with asyncio.timeout(self._image_s):
                return await self._first_let_in(image, credentials)
        except TimeoutError:
            raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{image.host} did not answer in time") from None
        except aiohttp.ClientError as error:
            raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{image.host} cannot be reached: {_words(error)}") from error

    async def _first_let_in(self, image: Image, credentials: Sequence[Credentials]) -> ImageConfig:
        tries: list[Credentials | None] = [*credentials] or [None]
        for one in tries[:-1]:
            try:
                return await _Visit(self._session, image, one).config()
            except RegistryProblem as problem:
                if problem.reason != reasons.AUTH_ERROR:
                    raise
        return await _Visit(self._session, image, tries[-1]).config()


@dataclass
class _Visit:
    """One image, one identity: what it takes to be let in is found out once and used for all requests."""

    session: aiohttp.ClientSession
    image: Image
    credentials: Credentials | None
    _authorization: dict[str, str] = field(default_factory=dict)

    async def config(self) -> ImageConfig:
        reference, first = self.image.reference, ""
        for _ in range(MOST_NESTED):
            digest, document = await self._manifest(reference)
            first = first or digest
            if not isinstance(document.get("manifests"), list):
                return ImageConfig(first, await self._labels(document))
            reference = _for_platform(document["manifests"], self.image)
        raise RegistryProblem(reasons.METADATA_MISSING, f"{self.image} is an index of indexes of indexes")

    async def _manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        answer = await self._get(f"manifests/{reference}", LARGEST_MANIFEST_BYTES, accept=_ACCEPT)
        expected = reference if is_digest(reference) else answer.headers.get("Docker-Content-Digest", "")
        return _checked(answer.body, expected, f"the manifest of {self.image}"), _object(answer.body, f"the manifest of {self.image}")

    async def _labels(self, manifest: dict[str, Any]) -> dict[str, Any]:
        config = manifest.get("config")
        if not isinstance(config, dict) or config.get("mediaType") not in CONFIG_TYPES or not is_digest(str(config.get("digest"))):
            kind = str(config.get("mediaType") if isinstance(config, dict) else manifest.get("mediaType"))[:100]
            raise RegistryProblem(reasons.METADATA_MISSING, f"{self.image} is not a container image with a config, but {kind}")
        answer = await self._get(f"blobs/{config['digest']}", LARGEST_CONFIG_BYTES)
        _checked(answer.body, config["digest"], f"the config of {self.image}")
        runtime = _object(answer.body, f"the config of {self.image}").get("config")
        labels = runtime.get("Labels") if isinstance(runtime, dict) else None
        return labels if isinstance(labels, dict) else {}

    async def _get(self, path: str, limit: int, *, accept: str = "*/*") -> "_Answer":
        """What is at a path of the repository; who asks is told when the registry wants to know."""
        url = URL(f"{self.image.scheme}://{self.image.host}/v2/{self.image.repository}/{path}", encoded=True)
        answer = await self._fetch(url, {"Accept": accept, **self._authorization}, limit)
        if answer.status == 401 and not self._authorization:
            self._authorization = {"Authorization": await self._admission(answer.challenges)}
            answer = await self._fetch(url, {"Accept": accept, **self._authorization}, limit)
        if answer.status == 200:
            return answer
        raise _refusal(answer, f"{self.image.host} for {path.partition('/')[0]} of {self.image.repository}", self.image)

    async def _admission(self, offered: Sequence[str]) -> str:
        """The Authorization that a 401 asks for."""
        challenge = choose(challenges(offered))
        if challenge is None:
            raise RegistryProblem(reasons.AUTH_ERROR, f"{self.image.host} asks for a kind of authentication that is neither Bearer nor Basic")
        if challenge.scheme == "basic":
            if self.credentials is None:
                raise RegistryProblem(reasons.AUTH_ERROR, f"{self.image.host} wants credentials, and no pull secret has any for {self.image}")
            return self.credentials.basic
        scope = challenge.parameters.get("scope") or f"repository:{self.image.repository}:pull"
        query = {"scope": scope, **({"service": service} if (service := challenge.parameters.get("service")) else {})}
        url = self._allowed(challenge.parameters.get("realm", ""), "token server").update_query(query)
        identity = {} if self.credentials is None else {"Authorization": self.credentials.basic}
        answer = await self._fetch(url, identity, LARGEST_ANSWER_BYTES)
        if answer.status != 200:
            raise _refusal(answer, f"token server {url.host}", self.image, token=True)
        document = _object(answer.body, f"the answer of token server {url.host}")
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryProblem(reasons.AUTH_ERROR, f"token server {url.host} gave no token")
        return f"Bearer {token}"

    async def _fetch(self, url: URL, headers: Mapping[str, str], limit: int) -> "_Answer":
        """GET, along redirects: to another origin without Authorization."""
        for _ in range(MOST_REDIRECTS + 1):
            async with self.session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status not in {301, 302, 303, 307, 308}:
                    offered = response.headers.getall("WWW-Authenticate", [])
                    return _Answer(response.status, response.headers, offered, await _read(response, limit))
                target = self._allowed(urljoin(str(url), response.headers.get("Location", "")), "redirect")
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{self.image.host} redirects more than {MOST_REDIRECTS} times")

    def _allowed(self, text: str, what: str) -> URL:
        """An absolute URL that may be asked."""
        try:
            url = URL(text)
        except ValueError:
            url = URL()
        loopback = is_loopback(self.image.host) and url.host is not None and is_loopback(f"[{url.host}]")
        if url.host and (url.scheme == "https" or (url.scheme == "http" and loopback)):
            return url
        raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{self.image.host} names a {what} that is not https: {text[:200]!r}")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    challenges: Sequence[str]
    body: bytes


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, of an error cut short. Raises RegistryProblem where it is larger than `limit`."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            if response.status != 200:
                break
            raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{response.url.host} answers with more than {limit >> 10} KiB")
    return bytes(body)


def _for_platform(manifests: list[Any], image: Image) -> str:
    """The digest of the entry for linux/amd64."""
    found: list[str] = []
    for entry in manifests:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict) or not is_digest(str(entry.get("digest"))):
            continue
        if (platform.get("os"), platform.get("architecture")) == (OS, ARCHITECTURE):
            return str(entry["digest"])
        found.append(f"{platform.get('os')}/{platform.get('architecture')}"[:40])
    there = f"only for {', '.join(found[:8])}" if found else "for no platform at all"
    raise RegistryProblem(reasons.IMAGE_NOT_FOUND, f"{image} is there {there}, not for {OS}/{ARCHITECTURE}")


def _checked(body: bytes, expected: str, what: str) -> str:
    """The digest of the body; `expected` is empty where none was promised."""
    algorithm = expected.partition(":")[0] if is_digest(expected) else "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
    if is_digest(expected) and digest != expected:
        raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{what} was damaged on its way: it is {digest}, not {expected}")
    return digest


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{what} is not a JSON object")
    return document


def _refusal(answer: _Answer, who: str, image: Image, *, token: bool = False) -> RegistryProblem:
    """An answer other than 200, named for what a person can do."""
    said = _error_words(answer.body)
    told = f"{who} answers {answer.status}{f': {said}' if said else ''}"
    if answer.status in {401, 403}:
        return RegistryProblem(reasons.AUTH_ERROR, told)
    if answer.status == 404 and not token:
        return RegistryProblem(reasons.IMAGE_NOT_FOUND, f"{image} is not in its registry: {told}")
    return RegistryProblem(reasons.REGISTRY_UNREACHABLE, told, _seconds(answer.headers.get("Retry-After")))


def _error_words(body: bytes) -> str:
    """Code and message of the first error (OCI distribution spec, "Error Codes")."""
    try:
        first = json.loads(body)["errors"][0]
        return f"{first.get('code', '')} {first.get('message', '')}".strip()[:200]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""


def _seconds(text: str | None) -> float:
    """Retry-After (RFC 9110, 10.2.3) in its form of seconds; 0 for none and for a date."""
    return min(float(text), 3600.0) if text is not None and text.isascii() and text.isdecimal() else 0.0


def _words(error: aiohttp.ClientError) -> str:
    return (str(error) or type(error).__name__)[:300]
