"""A small container registry on loopback: what a client needs to read manifests and configs (OCI
distribution spec), and nothing for pulling layers.

Filled from Python. With `users` it is private, by docker's token authentication or by Basic; what
goes wrong can be asked for.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from aimctl.local.ports import free_ports

HOST = "127.0.0.1"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
SERVICE = "aimlab-registry"


@dataclass(frozen=True, slots=True)
class Failure:
    """What every request for a manifest or a blob gets instead of an answer; `status` 0: the
    true answer, `delay_s` late."""

    status: int = 0
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One that came: `authorization` is the scheme it was sent with, empty for none."""

    path: str
    authorization: str


class Registry:
    """Serves while its block lasts, or between `start` and `stop`; always on the same port."""

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        auth: Literal["bearer", "basic"] = "bearer",
        tls: ssl.SSLContext | None = None,
        name: str = HOST,
    ) -> None:
        """`tls`: serve https with this; `name`: of the host, as references and URLs have it."""
        self.users = dict(users or {})
        self.identity_tokens: set[str] = set()
        """What the token server takes by OAuth2 instead of a user's name and password."""
        self.failure: Failure | None = None
        self.blobs_at = ""
        """Where blobs are redirected to: the URL of another registry, as object stores are."""
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._auth = auth
        self._tls = tls
        self._name = name
        self._port = free_ports(1)[0]
        self._content: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._tokens: dict[str, str] = {}
        self._runner: web.AppRunner | None = None

    @property
    def host(self) -> str:
        """host:port, as an image reference has it."""
        return f"{self._name}:{self._port}"

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://{self.host}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/token", self._token)
        app.router.add_post("/token", self._token_for_identity)
        app.router.add_get("/v2/", self._base)
        app.router.add_get(
            "/v2/{repository:.+}/{kind:manifests|blobs}/{reference}", self._serve_counted
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put_image(
        self,
        repository: str,
        tag: str,
        labels: Mapping[str, str],
        *,
        platforms: tuple[str, ...] = (),
        docker: bool = False,
    ) -> str:
        """An image with these labels, its digest given back; with `platforms` (such as
        linux/arm64) an index with one manifest for each."""
        types = (
            (DOCKER_INDEX, DOCKER_MANIFEST, DOCKER_CONFIG) if docker else (INDEX, MANIFEST, CONFIG)
        )
        if not platforms:
            return self.put(
                repository, types[1], self._manifest(repository, "linux/amd64", labels, types), tag
            )
        entries = []
        for platform in platforms:
            of_platform = labels if platform == "linux/amd64" else {}
            content = self._manifest(repository, platform, of_platform, types)
            digest = self.put(repository, types[1], content)
            os, _, architecture = platform.partition("/")
            named = {"os": os, "architecture": architecture}
            entries.append(
                {"mediaType": types[1], "digest": digest, "size": len(content), "platform": named}
            )
        return self.put(
            repository,
            types[0],
            _encode({"schemaVersion": 2, "mediaType": types[0], "manifests": entries}),
            tag,
        )

    def put(self, repository: str, media_type: str, content: bytes, tag: str = "") -> str:
        """Content by its digest, which is given back, and by a tag; for what `put_image` does
        not make."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for reference in (digest, tag):
            if reference:
                self._content[repository, reference] = (media_type, content)
        return digest

    def content(self, repository: str, reference: str) -> bytes:
        """Raises KeyError."""
        return self._content[repository, reference][1]

    def _manifest(
        self, repository: str, platform: str, labels: Mapping[str, str], types: tuple[str, str, str]
    ) -> bytes:
        os, _, architecture = platform.partition("/")
        rootfs = {"type": "layers", "diff_ids": []}
        config = _encode(
            {
                "os": os,
                "architecture": architecture,
                "config": {"Labels": dict(labels)},
                "rootfs": rootfs,
            }
        )
        digest = self.put(repository, types[2], config)
        described = {"mediaType": types[2], "digest": digest, "size": len(config)}
        return _encode(
            {"schemaVersion": 2, "mediaType": types[1], "config": described, "layers": []}
        )

    async def _base(self, _request: web.Request) -> web.Response:
        return web.Response() if not self.users else self._challenge("")

    async def _serve_counted(self, request: web.Request) -> web.StreamResponse:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._serve(request)
        finally:
            self._at_once -= 1

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        repository, kind, reference = (
            request.match_info[part] for part in ("repository", "kind", "reference")
        )
        scheme, _, identity = request.headers.get("Authorization", "").partition(" ")
        self.requests.append(Request(request.path, scheme))
        if self.failure is not None:
            await asyncio.sleep(self.failure.delay_s)
            if self.failure.status:
                return _error(
                    self.failure.status, "UNAVAILABLE", "as asked for", self.failure.headers
                )
        if self.users and not self._may(scheme, identity, repository):
            return self._challenge(repository)
        if kind == "blobs" and self.blobs_at:
            raise web.HTTPTemporaryRedirect(f"{self.blobs_at}{request.path}")
        found = self._content.get((repository, reference))
        if found is None:
            return _error(
                404,
                "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN",
                f"{reference} is unknown",
            )
        digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
        return web.Response(
            body=found[1], content_type=found[0], headers={"Docker-Content-Digest": digest}
        )

    def _may(self, scheme: str, identity: str, repository: str) -> bool:
        if self._auth == "basic":
            return scheme.lower() == "basic" and self._is_user(identity)
        return (
            scheme.lower() == "bearer"
            and self._tokens.get(identity) == f"repository:{repository}:pull"
        )

    def _is_user(self, identity: str) -> bool:
        name, _, password = base64.b64decode(identity).decode().partition(":")
        return bool(name) and self.users.get(name) == password

    def _challenge(self, repository: str) -> web.Response:
        how = 'Basic realm="aimlab"'
        if self._auth == "bearer":
            scope = f',scope="repository:{repository}:pull"' if repository else ""
            how = f'Bearer realm="{self.url}/token",service="{SERVICE}"{scope}'
        return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": how})

    async def _token(self, request: web.Request) -> web.Response:
        """docker's token specification: anonymous callers get a token too, for what anonymous
        callers may read, which here is nothing."""
        scheme, _, identity = request.headers.get("Authorization", "").partition(" ")
        self.requests.append(Request(request.path, scheme))
        if request.query.get("service") != SERVICE or (
            scheme.lower() == "basic" and not self._is_user(identity)
        ):
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        token = secrets.token_urlsafe(16)
        self._tokens[token] = request.query.get("scope", "") if scheme else ""
        return web.json_response({"token": token, "expires_in": 300})

    async def _token_for_identity(self, request: web.Request) -> web.Response:
        """docker's OAuth2 specification: a refresh token for an access token."""
        form = await request.post()
        self.requests.append(Request(request.path, ""))
        known = (
            form.get("grant_type") == "refresh_token"
            and form.get("refresh_token") in self.identity_tokens
        )
        if not known or form.get("service") != SERVICE or not form.get("client_id"):
            return _error(401, "UNAUTHORIZED", "identity token is unknown")
        token = secrets.token_urlsafe(16)
        self._tokens[token] = str(form.get("scope", ""))
        return web.json_response({"access_token": token, "expires_in": 300})


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.json_response(
        {"errors": [{"code": code, "message": message}]}, status=status, headers=headers
    )
