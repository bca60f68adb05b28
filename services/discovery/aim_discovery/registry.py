"""Reads the config of an image from its registry: OCI distribution API, and docker's token
authentication (docs/adr/0016 has the reason for our own client).

1. Nothing is trusted: sizes and times are bounded, manifests and configs are compared with their
   digests.
2. http is allowed only if registry and target are both on loopback. Credentials go to the registry
   and to the token server that it names, never to another origin after a redirect.
3. No layer is pulled.
"""

import asyncio
import hashlib
import json
import ssl
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
from aim_discovery.network import trouble
from aim_discovery.platforms import (
    ARCHITECTURE,
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OS,
    platform_name,
    platform_of,
    read_index,
)
from aimschema import reasons

LARGEST_MANIFEST_BYTES = 4 << 20
LARGEST_CONFIG_BYTES = 8 << 20
LARGEST_ANSWER_BYTES = 64 << 10
"""Of a token server or an error."""
MOST_REDIRECTS = 5
MOST_NESTED = 3
MOST_EXAMINED = 8
"""Manifests of one index that are read for their platform."""
REQUEST_S = 30.0
CONNECT_S = 10.0
IMAGE_S = 90.0
CLIENT = "aim-discovery"
_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))

Body = dict[str, Any]


class RegistryProblem(Exception):
    """Why an image cannot be inspected: `reason` of ImageInspected, and the wait that the registry
    requested.

    `way_out`: what a user can do; empty for what the reason implies.
    """

    def __init__(
        self, reason: str, message: str, retry_after_s: float = 0.0, way_out: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.way_out = way_out


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """`digest` is what the reference stood for: of the index where there is one."""

    digest: str
    labels: Body


class Registries:
    """Registries as discovery reads them. For one event loop; close it (or use it as a context)
    when done."""

    def __init__(self, *, image_s: float = IMAGE_S, ca_bundle: str | None = None) -> None:
        """`image_s`: how long one image may take in all. `ca_bundle`: a PEM file of CAs beside the
        system's.

        Raises OSError where that file cannot be read, ssl.SSLError where it has no certificate.
        """
        self._image_s = image_s
        trusted = ssl.create_default_context()
        if ca_bundle is not None:
            trusted.load_verify_locations(cafile=ca_bundle)
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, connect=CONNECT_S)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted),
            trust_env=False,
            timeout=timeout,
            # (a session that one identity opened must not let in the next)
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": CLIENT},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def config_of(self, image: Image, credentials: Sequence[Credentials]) -> ImageConfig:
        """The config for linux/amd64, requested with each of the credentials in turn,
        anonymously without any. Raises RegistryProblem."""
        try:
            async with asyncio.timeout(self._image_s):
                return await self._first_let_in(image, credentials)
        except TimeoutError:
            raise RegistryProblem(
                reasons.REGISTRY_UNREACHABLE, f"{image.host} did not answer in time"
            ) from None

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
    """One image, one identity: what it takes to be let in is found out once and used for all
    requests."""

    session: aiohttp.ClientSession
    image: Image
    credentials: Credentials | None
    _authorization: dict[str, str] = field(default_factory=dict)

    async def config(self) -> ImageConfig:
        digest, document = await self._manifest(self.image.reference)
        runtime = (await self._config(document, MOST_NESTED)).get("config")
        labels = runtime.get("Labels") if isinstance(runtime, dict) else None
        return ImageConfig(digest, labels if isinstance(labels, dict) else {})

    async def _config(self, document: Body, levels: int) -> Body:
        """The config of a manifest, or of an index's manifest for linux/amd64."""
        if not isinstance(document.get("manifests"), list):
            return await self._config_of(document)
        if levels == 1:
            raise RegistryProblem(
                reasons.METADATA_MISSING, f"{self.image} is an index of indexes of indexes"
            )
        entries = read_index(document["manifests"])
        if entries.ours:
            return await self._config((await self._manifest(entries.ours[0]))[1], levels - 1)
        others = list(entries.others)
        problems = []
        for digest in entries.undetermined[:MOST_EXAMINED]:
            try:
                config = await self._config((await self._manifest(digest))[1], levels - 1)
            except RegistryProblem as problem:
                if problem.reason not in {reasons.IMAGE_NOT_FOUND, reasons.METADATA_MISSING}:
                    raise
                problems.append(problem)  # (of a copied index some manifests may be missing)
                continue
            os, architecture = platform_of(config)
            if (os or OS, architecture or ARCHITECTURE) == (OS, ARCHITECTURE) and not _is_unknown(
                config
            ):
                return config
            others.append(platform_name(os, architecture))
        raise _no_manifest(self.image, others, problems, artifacts=entries.artifacts)

    async def _manifest(self, reference: str) -> tuple[str, Body]:
        answer = await self._get(f"manifests/{reference}", LARGEST_MANIFEST_BYTES, accept=_ACCEPT)
        document = _object(answer.body, f"the manifest of {self.image}")
        if document.get("schemaVersion") == 1:  # (its digest is not that of what is sent)
            problem = (
                f"{self.image} has a manifest of docker's schema 1, which container runtimes no"
                " longer pull"
            )
            raise RegistryProblem(
                reasons.METADATA_MISSING, problem, way_out="; build the image with a current tool"
            )
        expected = (
            reference if is_digest(reference) else answer.headers.get("Docker-Content-Digest", "")
        )
        return _check_digest(answer.body, expected, f"the manifest of {self.image}"), document

    async def _config_of(self, manifest: Body) -> Body:
        config = manifest.get("config")
        if (
            not isinstance(config, dict)
            or config.get("mediaType") not in (None, *CONFIG_TYPES)
            or not is_digest(str(config.get("digest")))
        ):
            kind = str(
                config.get("mediaType") if isinstance(config, dict) else manifest.get("mediaType")
            )[:100]
            raise RegistryProblem(
                reasons.METADATA_MISSING,
                f"{self.image} is not a container image with a config, but {kind}",
            )
        answer = await self._get(f"blobs/{config['digest']}", LARGEST_CONFIG_BYTES)
        _check_digest(answer.body, config["digest"], f"the config of {self.image}")
        return _object(answer.body, f"the config of {self.image}")

    async def _get(self, path: str, limit: int, *, accept: str = "*/*") -> "_Answer":
        """The content at a path of the repository; it authenticates if the registry requires
        that."""
        url = URL(
            f"{self.image.scheme}://{self.image.host}/v2/{self.image.repository}/{path}",
            encoded=True,
        )
        answer = await self._fetch(url, {"Accept": accept, **self._authorization}, limit)
        if answer.status == 401 and not self._authorization:
            self._authorization = {"Authorization": await self._admission(answer.challenges)}
            answer = await self._fetch(url, {"Accept": accept, **self._authorization}, limit)
        if answer.status == 200:
            return answer
        raise _error_of(
            answer,
            f"{self.image.host} for {path.partition('/')[0]} of {self.image.repository}",
            self.image,
        )

    async def _admission(self, offered: Sequence[str]) -> str:
        """The Authorization that a 401 requires."""
        challenge = choose(challenges(offered))
        if challenge is None:
            raise RegistryProblem(
                reasons.AUTH_ERROR,
                f"{self.image.host} requires an authentication scheme other than Bearer and Basic",
            )
        if challenge.scheme == "basic":
            if self.credentials is None or not self.credentials.username:
                raise RegistryProblem(
                    reasons.AUTH_ERROR,
                    f"{self.image.host} requires credentials, and no pull Secret has any for"
                    f" {self.image}",
                )
            return self.credentials.basic
        scope = challenge.parameters.get("scope") or f"repository:{self.image.repository}:pull"
        url = self._allowed_url(challenge.parameters.get("realm", ""), "token server")
        answer = await self._token_answer(
            url, {"scope": scope, **_optional("service", challenge.parameters)}
        )
        if answer.status != 200:
            raise _error_of(answer, f"token server {url.host}", self.image, token=True)
        document = _object(answer.body, f"the answer of token server {url.host}")
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryProblem(reasons.AUTH_ERROR, f"token server {url.host} gave no token")
        return f"Bearer {token}"

    async def _token_answer(self, url: URL, query: dict[str, str]) -> "_Answer":
        """The response of a token server: to an identity token by OAuth2, to a password or to an
        anonymous client by docker's GET."""
        who = self.credentials
        if who is not None and who.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": who.identity_token,
                "client_id": CLIENT,
            }
            return await self._once(url, {}, LARGEST_ANSWER_BYTES, form)
        identity = {} if who is None else {"Authorization": who.basic}
        return await self._fetch(url.update_query(query), identity, LARGEST_ANSWER_BYTES)

    async def _fetch(self, url: URL, headers: Mapping[str, str], limit: int) -> "_Answer":
        """GET, along redirects: to another origin without Authorization."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._once(url, headers, limit)
            if answer.status not in {301, 302, 303, 307, 308}:
                return answer
            target = self._allowed_url(
                urljoin(str(url), answer.headers.get("Location", "")), "redirect"
            )
            if target.origin() != url.origin():
                headers = {
                    name: value for name, value in headers.items() if name != "Authorization"
                }
            url = target
        raise RegistryProblem(
            reasons.REGISTRY_UNREACHABLE,
            f"{self.image.host} redirects more than {MOST_REDIRECTS} times",
        )

    async def _once(
        self,
        url: URL,
        headers: Mapping[str, str],
        limit: int,
        form: Mapping[str, str] | None = None,
    ) -> "_Answer":
        """One request, POST with a form. Raises RegistryProblem that names the server that
        cannot be reached."""
        method = "GET" if form is None else "POST"
        try:
            async with self.session.request(
                method, url, headers=headers, data=form, allow_redirects=False
            ) as response:
                offered = response.headers.getall("WWW-Authenticate", [])
                return _Answer(
                    response.status, response.headers, offered, await _read(response, limit)
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            problem, way_out = trouble(error, url.host_port_subcomponent or self.image.host)
            raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, problem, way_out=way_out) from error

    def _allowed_url(self, text: str, what: str) -> URL:
        """An absolute URL to which requests are allowed."""
        try:
            url = URL(text)
        except ValueError:
            url = URL()
        loopback = (
            is_loopback(self.image.host) and url.host is not None and is_loopback(f"[{url.host}]")
        )
        if url.host and (url.scheme == "https" or (url.scheme == "http" and loopback)):
            return url
        raise RegistryProblem(
            reasons.REGISTRY_UNREACHABLE,
            f"{self.image.host} names a {what} that is not https: {text[:200]!r}",
        )


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
            raise RegistryProblem(
                reasons.REGISTRY_UNREACHABLE,
                f"{response.url.host} answers with more than {limit >> 10} KiB",
            )
    return bytes(body)


def _is_unknown(config: Body) -> bool:
    """As the config of an attestation is."""
    return str(config.get("os")).lower() == "unknown"


def _no_manifest(
    image: Image, others: list[str], problems: list[RegistryProblem], *, artifacts: int
) -> RegistryProblem:
    """Of an index without a manifest for linux/amd64. It is not missing where there is anything
    in it."""
    if others:
        available = f"only for {', '.join(dict.fromkeys(others[:8]))}, not for {OS}/{ARCHITECTURE}"
        way_out = f"; push a manifest for {OS}/{ARCHITECTURE}, or correct spec.image"
        return RegistryProblem(
            reasons.METADATA_MISSING, f"{image} exists, but {available}", way_out=way_out
        )
    if problems:
        return problems[0]
    if artifacts:
        return RegistryProblem(
            reasons.METADATA_MISSING, f"{image} is an index without a container image"
        )
    return RegistryProblem(
        reasons.IMAGE_NOT_FOUND,
        f"{image} names no platform, not even {OS}/{ARCHITECTURE}",
    )


def _check_digest(body: bytes, expected: str, what: str) -> str:
    """The digest of the body; `expected` is empty where none was promised."""
    algorithm = expected.partition(":")[0] if is_digest(expected) else "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
    if is_digest(expected) and digest != expected:
        raise RegistryProblem(
            reasons.REGISTRY_UNREACHABLE,
            f"{what} is corrupt: its digest is {digest}, not {expected}",
        )
    return digest


def _object(body: bytes, what: str) -> Body:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryProblem(reasons.REGISTRY_UNREACHABLE, f"{what} is not a JSON object")
    return document


def _error_of(answer: _Answer, who: str, image: Image, *, token: bool = False) -> RegistryProblem:
    """An answer other than 200, named for what a person can do."""
    detail = _error_message(answer.body)
    message = f"{who} answers {answer.status}{f': {detail}' if detail else ''}"
    if answer.status in {401, 403}:
        return RegistryProblem(reasons.AUTH_ERROR, message)
    if answer.status == 404 and not token:
        return RegistryProblem(
            reasons.IMAGE_NOT_FOUND, f"{image} is not in its registry: {message}"
        )
    return RegistryProblem(
        reasons.REGISTRY_UNREACHABLE, message, _seconds(answer.headers.get("Retry-After"))
    )


def _error_message(body: bytes) -> str:
    """Code and message of the first error (OCI distribution spec, "Error Codes")."""
    try:
        first = json.loads(body)["errors"][0]
        return f"{first.get('code', '')} {first.get('message', '')}".strip()[:200]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""


def _optional(name: str, parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: parameters[name]} if parameters.get(name) else {}


def _seconds(text: str | None) -> float:
    """Retry-After (RFC 9110, 10.2.3) in its form of seconds; 0 for none and for a date."""
    return (
        min(float(text), 3600.0)
        if text is not None and text.isascii() and text.isdecimal()
        else 0.0
    )
