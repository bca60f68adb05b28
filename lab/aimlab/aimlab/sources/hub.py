"""A small Hugging Face hub on loopback. An unmodified huggingface_hub uses it through HF_ENDPOINT.

It has what reading models needs: model info, tree, refs and resolve, with commits, branches and
tags. Access errors are those of the hub:

1. An unknown token: 401. A private or missing repository: 401 without a token, 404 RepoNotFound
   with one.
2. A gated repository is listed for everyone. Its files are 401 without a token and 403 GatedRepo
   with one, until its terms are accepted.
3. A small file comes from the hub with its git blob id. A large one is a redirect to a content
   network at another address, to which a token must not be sent.

The process that runs it puts models and faults into it.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from aiohttp import web

from aimlab.kinds import Body

Content = bytes | Path
MAIN: Final = "main"
LARGE_SUFFIXES: Final = frozenset({".bin", ".gguf", ".h5", ".onnx", ".pt", ".safetensors"})
LARGE_FROM_BYTES: Final = 10 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_POINTER_BYTES: Final = 135
_CREATED: Final = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class InjectedError:
    """An answer instead of the right one. `code` and `message` are the hub's X-Error-Code and
    X-Error-Message."""

    status: int
    code: str = ""
    message: str = ""
    retry_after_s: int | None = None

    def response(self) -> web.Response:
        headers = {
            "X-Error-Code": self.code,
            "X-Error-Message": self.message,
            "Retry-After": "" if self.retry_after_s is None else str(self.retry_after_s),
        }
        return web.json_response(
            {"error": self.message},
            status=self.status,
            headers={name: value for name, value in headers.items() if value},
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with an answer that has content: after so many bytes it pauses, and then
    it may be cut."""

    after_bytes: int = 0
    pause_s: float = 0.0
    cut: bool = False


STALLED: Final = Fault(pause_s=86_400.0)
CUT: Final = Fault(cut=True)


@dataclass(slots=True)
class File:
    """The facts that the hub publishes of a file, and the content that it serves. If the two
    differ, the hub is wrong."""

    content: Content
    size_bytes: int
    sha256: str
    git_sha1: str
    large: bool

    @classmethod
    def of(cls, path: str, content: Content) -> "File":
        """Reads and hashes all of it."""
        size_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
        sha256 = hashlib.sha256()
        git_sha1 = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        for start in range(0, size_bytes, _PIECE_BYTES):
            piece = _piece(content, start, min(start + _PIECE_BYTES, size_bytes))
            sha256.update(piece)
            git_sha1.update(piece)
        large = size_bytes >= LARGE_FROM_BYTES or PurePosixPath(path).suffix in LARGE_SUFFIXES
        return cls(content, size_bytes, sha256.hexdigest(), git_sha1.hexdigest(), large)


@dataclass(slots=True)
class Model:
    """A repository. `readers` are the tokens with access to a private or gated one.

    `errors` are the answers to the next requests, `faults` spoil the next answers with content, and
    each answer takes `delay_s` seconds to begin.
    """

    name: str
    gated: bool = False
    private: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    errors: list[InjectedError] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    delay_s: float = 0.0

    @property
    def head(self) -> str:
        """The commit of the main branch."""
        return self.branches[MAIN]

    @property
    def files(self) -> dict[str, File]:
        """The files of the main branch."""
        return self.commits[self.head]

    def commit_of(self, revision: str) -> str | None:
        return (
            self.branches.get(revision)
            or self.tags.get(revision)
            or (revision if revision in self.commits else None)
        )


@dataclass(slots=True)
class HubDialect:
    """How a mirror departs from the hub. The default is the hub.

    `omits` are fields of model info and siblings (`lfs.sha256` and the like inside), or `tree`,
    `linked` (the headers beside a redirect), `Content-Length` and `Content-Range` as a whole. A
    mirror without `network` serves large files itself.
    """

    omits: frozenset[str] = frozenset()
    network: bool = True
    ranges: Literal["kept", "ignored", "rejected", "shifted"] = "kept"
    head: int = 200
    page: str = ""
    """HTML that is answered with 200 to everything."""
    moved_to: str = ""
    """Another address that everything is redirected to."""

    def without_omitted(self, facts: Mapping[str, Any], within: str = "") -> dict[str, Any]:
        """The facts that this mirror gives."""
        named = {name: value for name, value in facts.items() if within + name not in self.omits}
        return {
            name: self.without_omitted(value, f"{name}.") if isinstance(value, Mapping) else value
            for name, value in named.items()
        }


@dataclass(slots=True)
class Hub:
    """A running hub. `tokens` are the valid ones; `requests` has path and range of every request so
    far."""

    endpoint: str = ""
    network: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    dialect: HubDialect = field(default_factory=HubDialect)
    _signature: str = field(default_factory=lambda: secrets.token_hex(8))

    def put_model(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        branch: str = MAIN,
        tags: Iterable[str] = (),
    ) -> Model:
        """Makes a commit of these files and moves the branch to it; makes the repository where
        it is missing. Hashing takes seconds a gigabyte."""
        model = self.models.setdefault(name, Model(name))
        commit = {path: File.of(path, content) for path, content in files.items()}
        commit_lines = [
            name,
            branch,
            str(len(model.commits)),
            *(f"{path} {file.sha256}" for path, file in sorted(commit.items())),
        ]
        identity = hashlib.sha1("\n".join(commit_lines).encode(), usedforsecurity=False).hexdigest()
        model.commits[identity] = commit
        model.branches[branch] = identity
        model.tags |= dict.fromkeys(tags, identity)
        return model

    def restrict(
        self, name: str, *, gated: bool = False, private: bool = False, readers: Iterable[str] = ()
    ) -> Model:
        """Makes a repository gated or private; the readers' tokens are known from then on."""
        model = self.models[name]
        model.gated = gated
        model.private = private
        model.readers = set(readers)
        self.tokens |= model.readers
        return model

    def rename(self, name: str, to: str) -> None:
        """Who asks for the old name is sent on to the new one."""
        model = self.models[to] = self.models.pop(name)
        model.name, self.moved[name] = to, to

    def application(self) -> web.Application:
        """What answers at `endpoint`."""
        api = "/api/models/{owner}/{name}"
        app = web.Application()
        app.router.add_get(api, self._handler(self._info))
        app.router.add_get(api + "/revision/{revision}", self._handler(self._info))
        app.router.add_get(api + "/tree/{revision}", self._handler(self._tree))
        app.router.add_get(api + "/refs", self._handler(self._refs))
        app.router.add_get(
            "/{owner}/{name}/resolve/{revision}/{path:.+}", self._handler(self._resolve)
        )
        return app

    def content_network(self) -> web.Application:
        """What answers at `network`."""
        app = web.Application()
        app.router.add_get("/blobs/{owner}/{name}/{commit}/{path:.+}", self._blob)
        return app

    def _handler(
        self, answer: Callable[[web.Request, Model], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Moved names, requested errors and access are checked before the answer."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self._note(request)
            if self.dialect.page:
                return web.Response(text=self.dialect.page, content_type="text/html")
            if self.dialect.moved_to:
                return web.Response(
                    status=308, headers={"Location": f"{self.dialect.moved_to}{request.rel_url}"}
                )
            name = _name(request)
            if name in self.moved:
                where = str(request.rel_url).replace(f"/{name}", f"/{self.moved[name]}", 1)
                return web.Response(status=307, headers={"Location": where})
            model = self.models.get(name)
            if model is not None:
                await asyncio.sleep(model.delay_s)
                if model.errors:
                    return model.errors.pop(0).response()
            injected_error = self._access_error(model, request)
            if injected_error is not None or model is None:
                return (injected_error or InjectedError(404)).response()
            if (
                "revision" in request.match_info
                and model.commit_of(request.match_info["revision"]) is None
            ):
                return InjectedError(
                    404, "RevisionNotFound", f"Invalid rev id: {request.match_info['revision']}"
                ).response()
            return await answer(request, model)

        return handle

    def _access_error(self, model: Model | None, request: web.Request) -> InjectedError | None:
        """Why the caller may not have this; rules 1 and 2 of the module."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            return InjectedError(401, message="Invalid credentials in Authorization header")
        if model is None or (model.private and token not in model.readers):
            return (
                InjectedError(404, "RepoNotFound", "Repository not found")
                if token
                else InjectedError(401, message="Invalid username or password.")
            )
        if model.gated and token not in model.readers and "path" in request.match_info:
            return InjectedError(
                403 if token else 401, "GatedRepo", f"Access to model {model.name} is restricted."
            )
        return None

    async def _info(self, request: web.Request, model: Model) -> web.Response:
        commit = model.commit_of(request.match_info.get("revision", MAIN)) or ""
        detailed = "blobs" in request.query
        facts = {
            "id": model.name,
            "modelId": model.name,
            "sha": commit,
            "private": model.private,
            "gated": "manual" if model.gated else False,
        }
        dates = {"lastModified": _CREATED, "createdAt": _CREATED}
        described = {
            path: self.dialect.without_omitted(_sibling(file)) if detailed else {}
            for path, file in model.commits[commit].items()
        }
        siblings = [
            self.dialect.without_omitted({"rfilename": path}) | facts
            for path, facts in described.items()
        ]
        return web.json_response(
            self.dialect.without_omitted(
                facts | dates | {"tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
            )
        )

    async def _tree(self, request: web.Request, model: Model) -> web.Response:
        files = model.commits[model.commit_of(request.match_info["revision"]) or ""]
        if "tree" in self.dialect.omits:
            return InjectedError(404).response()
        return web.json_response([_entry(path, file) for path, file in files.items()])

    async def _refs(self, _request: web.Request, model: Model) -> web.Response:
        def references(kind: str, refs: Mapping[str, str]) -> list[Body]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
                for name, commit in refs.items()
            ]

        return web.json_response(
            {
                "branches": references("heads", model.branches),
                "tags": references("tags", model.tags),
                "converts": [],
            }
        )

    async def _resolve(self, request: web.Request, model: Model) -> web.StreamResponse:
        commit = model.commit_of(request.match_info["revision"]) or ""
        path = request.match_info["path"]
        file = model.commits[commit].get(path)
        pinned = {"X-Repo-Commit": commit}
        if file is None:
            return web.Response(
                status=404,
                headers=pinned
                | {
                    "X-Error-Code": "EntryNotFound",
                    "X-Error-Message": "Entry not found",
                },
            )
        if request.method == "HEAD" and self.dialect.head != 200:
            return web.Response(status=self.dialect.head)
        if not file.large or not self.dialect.network:
            return await self._content(
                request, model, file, pinned | {"ETag": f'"{file.git_sha1}"'}
            )
        linked = (
            {}
            if "linked" in self.dialect.omits
            else {"X-Linked-Size": str(file.size_bytes), "X-Linked-Etag": f'"{file.sha256}"'}
        )
        where = f"{self.network}/blobs/{model.name}/{commit}/{path}?signature={self._signature}"
        return web.Response(status=302, headers=pinned | linked | {"Location": where})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        """The address is the permission; a store like Amazon's rejects one with another permission
        beside it (400)."""
        self._note(request)
        if "Authorization" in request.headers:
            return web.Response(status=400)
        if request.query.get("signature") != self._signature:
            return web.Response(status=403)
        model = self.models[_name(request)]
        file = model.commits[request.match_info["commit"]][request.match_info["path"]]
        return await self._content(request, model, file, {"ETag": f'"{file.sha256}"'})

    async def _content(
        self, request: web.Request, model: Model, file: File, headers: dict[str, str]
    ) -> web.StreamResponse:
        """All of a file or the range that was asked for, with the next of the model's faults."""
        size_bytes = (
            len(file.content) if isinstance(file.content, bytes) else file.content.stat().st_size
        )
        ranges = self.dialect.ranges
        start, end, _ = request.http_range.indices(size_bytes)
        status = 206 if "Range" in request.headers and ranges != "ignored" else 200
        if status == 206 and (start >= end or ranges == "rejected"):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size_bytes}"})
        if status == 200:
            start, end = 0, size_bytes
        elif ranges == "shifted":
            start, end = 0, end - start
        ranged = {"Content-Range": f"bytes {start}-{end - 1}/{size_bytes}"} if status == 206 else {}
        headers = {
            name: value
            for name, value in (headers | ranged).items()
            if name not in self.dialect.omits
        }
        answer = web.StreamResponse(status=status, headers=headers | {"Accept-Ranges": "bytes"})
        if "Content-Length" in self.dialect.omits:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = end - start
        await answer.prepare(request)
        if request.method != "HEAD":
            await _send(
                request,
                answer,
                (file.content, start, end),
                model.faults.pop(0) if model.faults else None,
            )
        return answer

    def _note(self, request: web.Request) -> None:
        self.requests.append(f"{request.path} {request.headers.get('Range', '')}".strip())


@asynccontextmanager
async def hub() -> AsyncIterator[Hub]:
    """Runs an empty hub for as long as the block lasts."""
    running = Hub()
    # A client that gives up ends its answer, and answers that stall for ever do not hold up the
    # end.
    runners = [
        web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        for app in (running.application(), running.content_network())
    ]
    try:
        running.endpoint, running.network = [await _listen(runner) for runner in runners]
        yield running
    finally:
        for runner in runners:
            await runner.cleanup()


async def _listen(runner: web.AppRunner) -> str:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def _send(
    request: web.Request,
    answer: web.StreamResponse,
    span: tuple[Content, int, int],
    fault: Fault | None,
) -> None:
    content, start, end = span
    stops = end if fault is None else min(end, start + fault.after_bytes)
    for first, last in ((start, stops), (stops, end)):
        for at in range(first, last, _PIECE_BYTES):
            await answer.write(
                await asyncio.to_thread(_piece, content, at, min(at + _PIECE_BYTES, last))
            )
        if fault is not None and last == stops:
            await asyncio.sleep(fault.pause_s)
            if fault.cut and request.transport is not None:
                request.transport.abort()
                return
    await answer.write_eof()


def _piece(content: Content, start: int, end: int) -> bytes:
    if isinstance(content, bytes):
        return content[start:end]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _name(request: web.Request) -> str:
    return f"{request.match_info['owner']}/{request.match_info['name']}"


def _sibling(file: File) -> dict[str, Any]:
    lfs = (
        {"lfs": {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": _POINTER_BYTES}}
        if file.large
        else {}
    )
    return {"size": file.size_bytes, "blobId": file.git_sha1} | lfs


def _entry(path: str, file: File) -> dict[str, Any]:
    lfs = (
        {"lfs": {"oid": file.sha256, "size": file.size_bytes, "pointerSize": _POINTER_BYTES}}
        if file.large
        else {}
    )
    return {"type": "file", "path": path, "oid": file.git_sha1, "size": file.size_bytes} | lfs
