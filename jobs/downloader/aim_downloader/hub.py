"""The Hugging Face hub as a source: `hf://owner/name[@revision]`.

The listing is the hub's model info with file metadata. It names the commit; every later request
names that commit, so a branch that moves during the run changes nothing. The hub answers requests
for large files with a redirect to a CDN. The signed URL serves the other ranges of the file too,
since the hub limits the request rate. The token is only sent to the hub itself.

Mirrors may omit fields. Without siblings the tree is listed; without a size the file gets a HEAD;
without a commit the requested revision is used, and the result has a remark. A response that is not
the hub's protocol ends the run with the server's own message."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx2
import msgspec
from huggingface_hub import hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # (documented under these names)
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
    validate_repo_id,
)
from yarl import URL

from aim_downloader.clean import clean
from aim_downloader.exit_codes import Failure, Outcome, RangesIgnored, Retryable
from aim_downloader.paths import is_own
from aim_downloader.plain import Headers, PlainReader, PlainRequest, has_proxy
from aim_downloader.ranges import Answered, fault_of
from aim_downloader.retry import RETRY_AFTER_MAX_S, Limits, retry
from aim_downloader.source import Body, ExpectedChecksums, Listing, SourceFile
from aim_downloader.trust import certificate_fault, tls_context
from aim_downloader.uri import HubUri

_INFO_TIMEOUT_S = 20.0
_REDIRECTS_MAX = 5
_LIMITED = frozenset({429, 503})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PAGES_MAX = 1000
_DEFAULT_ENDPOINT = "https://huggingface.co"
_MAIN = "main"
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_TOTAL = re.compile(r"bytes\s+(?:\*|0-0)/(\d+)")


@dataclass(frozen=True)
class Hub:
    """The endpoint of the hub, and the optional token."""

    endpoint: str
    token: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Hub:
        """Read HF_ENDPOINT and HF_TOKEN."""
        return cls(
            env.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT,
            env.get("HF_TOKEN", "").strip() or None,
        )

    def is_home(self, url: URL) -> bool:
        """Whether the token may be sent to `url`: to the hub itself, also after its redirect from
        http to https."""
        home = URL(self.endpoint).origin()
        is_upgrade = (home.scheme, home.port, url.scheme, url.port) == (
            "http",
            80,
            "https",
            443,
        ) and url.host == home.host
        return url.origin() == home or is_upgrade


@asynccontextmanager
async def open_hub(uri: HubUri, env: Mapping[str, str], limits: Limits) -> AsyncIterator[HubSource]:
    """The source for the duration of a run."""
    tls = tls_context(env)
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, verify=tls))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0)
    connector = aiohttp.TCPConnector(limit=limits.ranges_in_flight, ssl=tls)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, trust_env=True, auto_decompress=False
    ) as session:
        source = HubSource(uri, Hub.from_env(env), session, limits)
        source.reader = PlainReader(tls, limits.stall_s)
        try:
            yield source
        finally:
            source.reader.close()


class HubSource:
    """Implements `Source` and `PlainSource`. Call `listing` first: it resolves the commit."""

    reader: PlainReader

    def __init__(
        self, uri: HubUri, hub: Hub, session: aiohttp.ClientSession, limits: Limits
    ) -> None:
        self._uri = uri
        self._hub = hub
        self._session = session
        self._limits = limits
        self._revision = ""
        self._expected: dict[str, ExpectedChecksums] = {}
        self._redirect_targets: dict[str, URL] = {}
        self._direct: set[str] = set()
        self._limited_until_s = 0.0
        self._size_requests = asyncio.Semaphore(limits.files_in_flight)

    async def listing(self) -> Listing:
        info, listed = await retry(self._limits, lambda: asyncio.to_thread(self._fetch_info))
        commit = str(info.get("sha") or "")
        self._revision = commit or self._uri.revision or _MAIN
        remark = (
            ""
            if commit
            else f"{self._hub.endpoint} names no commit, so the revision is only its name"
        )
        facts = [each for each in listed if not is_own(each.path)]
        self._expected = {each.path: each.expected for each in facts}
        async with asyncio.TaskGroup() as tasks:
            lookups = [tasks.create_task(self._file(each)) for each in facts]
        files = (task.result() for task in lookups)
        return Listing(self._revision, tuple(sorted(files, key=lambda file: file.path)), remark)

    async def expected_checksums(self, file: SourceFile) -> ExpectedChecksums:
        return self._expected[file.path]

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        async with self._open(file, (start, end)) as body:
            yield body

    async def plain_request(
        self, file: SourceFile, requested: tuple[int, int]
    ) -> PlainRequest | None:
        """None for a large file until the session has found out where it is."""
        url = self._redirect_targets.get(file.path)
        if url is None and self.is_checked_by_answer(file):
            url = self._file_url(file)
        if url is None or has_proxy(str(url)) or (self._hub.is_home(url) and self._limited_s() > 0):
            return None
        start, end = requested
        headers = self._token_for(url) | {"Range": f"bytes={start}-{end - 1}"}

        def is_right(answer: Headers) -> bool:
            return not answer.get("content-type", "").startswith("text/html")

        return PlainRequest(
            str(url), headers, start, end, file.size_bytes, is_right, self._note_limit
        )

    def is_checked_by_answer(self, file: SourceFile) -> bool:
        """The hub sends a file in git itself, and redirects to the others."""
        return file.path in self._direct or bool(self._expected[file.path].git_sha1)

    def checksums_of_answer(
        self,
        file: SourceFile,
        headers: Headers,  # noqa: ARG002 - of the port
    ) -> ExpectedChecksums:
        return self._expected[file.path]

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Body]:
        async with self._open(file, None) as body:
            yield body

    # --- the listing, in a thread

    def _fetch_info(self) -> tuple[Mapping[str, Any], list[FileFacts]]:
        """The model info, and the files that it lists, or else the tree."""
        repo, revision = self._uri.repo, self._uri.revision
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise Failure(
                Outcome.NOT_FOUND, f"the hub cannot have a repository {repo}: {error}"
            ) from error
        path = f"{self._hub.endpoint}/api/models/{repo}"
        info, _ = self._json(
            path if revision is None else f"{path}/revision/{quote(revision, safe='')}",
            {"blobs": "true"},
        )
        if not isinstance(info, Mapping):
            raise Failure(
                Outcome.TRANSIENT,
                f"{self._hub.endpoint} gives no model info of {repo}: correct HF_ENDPOINT",
            )
        return info, self._file_facts(info.get("siblings"), "rfilename") or self._tree(
            f"{path}/tree/{quote(str(info.get('sha') or revision or _MAIN), safe='')}"
        )

    def _tree(self, url: str) -> list[FileFacts]:
        """The files of the tree; empty if the mirror has no tree."""
        listed: list[FileFacts] = []
        following: str | None = url
        for _ in range(_PAGES_MAX):
            try:
                page, following = self._json(
                    following, {"recursive": "true"} if following == url else {}
                )
            except Failure as error:
                if error.outcome is Outcome.NOT_FOUND and following == url:
                    return []
                raise
            listed += self._file_facts(page, "path")
            if not following:
                return listed
        raise Failure(Outcome.TRANSIENT, f"{self._hub.endpoint} lists {self._uri.repo} without end")

    def _file_facts(self, listed: object, name: str) -> list[FileFacts]:
        facts = facts_of(listed, name)
        if facts is None:
            raise Failure(
                Outcome.TRANSIENT,
                f"{self._hub.endpoint} lists files of {self._uri.repo} without their names",
            )
        return facts

    def _json(self, url: str | None, params: dict[str, str]) -> tuple[Any, str | None]:
        """The decoded response, and the URL of the next page. Raises Failure or Retryable."""
        headers = build_hf_headers(token=self._hub.token or False)
        try:
            answer = get_session().get(
                str(url), headers=headers, params=params or None, timeout=_INFO_TIMEOUT_S
            )
            self._note_limit(answer.status_code, answer.headers)
            hf_raise_for_status(answer)
        except HfHubHTTPError as error:
            raise self._error_of_response(error.response) from error
        except httpx2.TooManyRedirects as error:
            raise Failure(
                Outcome.TRANSIENT,
                f"{self._hub.endpoint} redirects without end: correct HF_ENDPOINT",
            ) from error
        except Exception as error:
            raise self._no_answer(
                error, f"asking {self._hub.endpoint}", self._hub.endpoint
            ) from error
        try:
            return answer.json(), answer.links.get("next", {}).get("url")
        except ValueError as error:
            kind = answer.headers.get("Content-Type", "").partition(";")[0] or "no content type"
            message = (
                f"{self._hub.endpoint} answers with {kind} where JSON is expected: correct"
                " HF_ENDPOINT"
            )
            raise Failure(Outcome.TRANSIENT, message) from error

    def _error_of_response(self, answer: httpx2.Response) -> Failure | Retryable:
        problem = error_of_response(
            self._uri, self._hub, answer.status_code, answer.headers, answer.text
        )
        origin = URL(str(answer.url)).origin()
        if answer.history and not self._hub.is_home(origin) and isinstance(problem, Failure):
            message = (
                f"{self._hub.endpoint} redirects to {origin}, where no token is sent: set"
                f" HF_ENDPOINT to it ({problem.message})"
            )
            return Failure(problem.outcome, message)
        return problem

    def _no_answer(self, error: Exception, doing: str, server: str) -> Failure | Retryable:
        if fault := certificate_fault(error):
            return Failure(Outcome.TRANSIENT, f"{server}: {fault}")
        return Retryable(f"{type(error).__name__} while {doing}")

    # --- a file

    async def _file(self, facts: FileFacts) -> SourceFile:
        """The file of the listing; without a listed size, a request gets it."""
        file = SourceFile(
            facts.path,
            facts.size_bytes or 0,
            facts.expected.sha256 or facts.expected.git_sha1,
            facts.path,
        )
        if facts.size_bytes is not None:
            return file
        async with self._size_requests:
            size_bytes, etag, expected = await retry(self._limits, lambda: self._measure(file))
        if facts.expected == ExpectedChecksums():
            self._expected[file.path] = expected
        return SourceFile(file.path, size_bytes, file.tag or etag, file.key)

    async def _measure(self, file: SourceFile) -> tuple[int, str, ExpectedChecksums]:
        """Size and ETag by HEAD, or else by a range of one byte. For large files the response with
        the redirect has both."""
        async with self._response(file, "HEAD", None) as (answer, all_headers):
            etag = all_headers.get("X-Linked-Etag", "") or answer.headers.get("ETag", "")
            linked = all_headers.get("X-Linked-Etag", "").strip('"')
            expected = (
                ExpectedChecksums(sha256=linked)
                if _SHA256.fullmatch(linked)
                else ExpectedChecksums()
            )
            plain = answer.status == 200 and _is_plain(answer) and not _is_page(answer, file)
            size = all_headers.get("X-Linked-Size", "") or (
                answer.headers.get("Content-Length", "") if plain else ""
            )
        if not size.isdigit():
            async with self._response(file, "GET", (0, 1)) as (answer, _):
                etag = etag or answer.headers.get("ETag", "")
                total = _TOTAL.match(answer.headers.get("Content-Range", ""))
                length = (
                    answer.headers.get("Content-Length", "")
                    if answer.status == 200 and _is_plain(answer)
                    else ""
                )
                size = str(total[1]) if total else length
                if answer.status >= 400 and answer.status != 416:
                    raise error_of_response(self._uri, self._hub, answer.status, answer.headers)
        if not size.isdigit():
            raise Failure(Outcome.TRANSIENT, f"{self._hub.endpoint} gives no size of {file.path}")
        return int(size), etag, expected

    @asynccontextmanager
    async def _open(
        self, file: SourceFile, requested: tuple[int, int] | None
    ) -> AsyncIterator[Body]:
        async with self._response(file, "GET", requested) as (answer, _):
            self._check(answer, file, requested)
            yield answer.content

    @asynccontextmanager
    async def _response(
        self, file: SourceFile, method: str, requested: tuple[int, int] | None
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Mapping[str, str]]]:
        """The last response after the redirects of a file, and the headers of all of them."""
        try:
            async with AsyncExitStack() as stack:
                yield await self._request(stack, method, file, requested)
        except (aiohttp.ClientError, ConnectionError) as error:
            self._redirect_targets.pop(file.path, None)
            server = (
                f"https://{error.host}"
                if isinstance(error, aiohttp.ClientConnectorError)
                else self._hub.endpoint
            )
            raise self._no_answer(error, "reading from the hub", server) from error

    async def _request(
        self,
        stack: AsyncExitStack,
        method: str,
        file: SourceFile,
        requested: tuple[int, int] | None,
    ) -> tuple[aiohttp.ClientResponse, Mapping[str, str]]:
        url = self._redirect_targets.get(file.path) or self._file_url(file)
        headers = {"Accept-Encoding": "identity"} | (
            {"Range": f"bytes={requested[0]}-{requested[1] - 1}"} if requested else {}
        )
        headers_met: dict[str, str] = {}
        for _ in range(_REDIRECTS_MAX):
            if self._hub.is_home(url):
                self._require_turn()
            answer = await stack.enter_async_context(
                self._session.request(
                    method, url, headers=headers | self._token_for(url), allow_redirects=False
                )
            )
            if self._hub.is_home(url):
                self._note_limit(answer.status, answer.headers)
            if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                headers_met |= {name.title(): value for name, value in answer.headers.items()}
                if method == "GET" and answer.status < 400:
                    self._note_place(file, url)
                return answer, headers_met
            headers_met |= {name.title(): value for name, value in answer.headers.items()}
            url = url.join(URL(answer.headers["Location"], encoded=True))
        raise Retryable("too many redirects")

    def _note_limit(self, status: int, headers: Mapping[str, str]) -> None:
        """After a rejection for the rate limit, or with the last request of a window, no request of
        this run goes to the hub before the time that it names."""
        named = httpx2.Headers(dict(headers))
        limit = parse_ratelimit_headers(named)
        if status in _LIMITED or (limit is not None and limit.remaining == 0):
            wait_s = min(_wait_s(named), RETRY_AFTER_MAX_S)
            self._limited_until_s = max(self._limited_until_s, time.monotonic() + wait_s)

    def _limited_s(self) -> float:
        return self._limited_until_s - time.monotonic()

    def _require_turn(self) -> None:
        """Raises Retryable while the rate limit of the hub is used up."""
        if (wait_s := self._limited_s()) > 0:
            raise Retryable("the rate limit of the hub is used up", retry_after_s=wait_s)

    def _note_place(self, file: SourceFile, url: URL) -> None:
        if self._hub.is_home(url):
            self._direct.add(file.path)
        else:
            self._redirect_targets[file.path] = url

    def _file_url(self, file: SourceFile) -> URL:
        repo, revision = self._uri.repo, self._revision
        url = hf_hub_url(repo, file.key, revision=revision, endpoint=self._hub.endpoint)
        return URL(url, encoded=True)

    def _token_for(self, url: URL) -> dict[str, str]:
        """The token is only sent to the hub itself."""
        has_token = self._hub.token and self._hub.is_home(url)
        return {"Authorization": f"Bearer {self._hub.token}"} if has_token else {}

    def _check(
        self, answer: aiohttp.ClientResponse, file: SourceFile, requested: tuple[int, int] | None
    ) -> None:
        """Raises if the response is not the requested content."""
        if requested and (
            answer.status in {416, 501}
            or (answer.status == 200 and requested != (0, file.size_bytes))
        ):
            raise RangesIgnored
        if answer.status not in {200, 206}:
            self._redirect_targets.pop(file.path, None)
            if self._hub.is_home(answer.url):
                raise error_of_response(self._uri, self._hub, answer.status, answer.headers)
            raise Retryable(f"HTTP {answer.status} from {answer.url.host}")
        if not _is_plain(answer) or _is_page(answer, file):
            kind = (
                answer.content_type
                if _is_page(answer, file)
                else answer.headers["Content-Encoding"]
            )
            message = (
                f"{answer.url.origin()} answers with {kind} where {file.path} itself was asked for:"
                " correct HF_ENDPOINT, or what is before it"
            )
            raise Failure(Outcome.TRANSIENT, message)
        answered = Answered(
            answer.status, answer.headers.get("Content-Range", ""), answer.content_length
        )
        if fault := fault_of(answered, requested or (0, file.size_bytes), file.size_bytes):
            raise Retryable(f"{answer.url.origin()} {fault}")


@dataclass(frozen=True)
class FileFacts:
    """A file of a listing. A mirror may omit everything but the path."""

    path: str
    size_bytes: int | None
    expected: ExpectedChecksums


def facts_of(listed: object, name: str) -> list[FileFacts] | None:
    """The files of a model info (`rfilename`) or a tree (`path`). Empty without a list. None if an
    entry has no name: some files would be missing.

    Other malformed fields count as omitted.
    """
    entries = listed if isinstance(listed, list) else []
    if any(
        not isinstance(each, Mapping) or not isinstance(each.get(name), str) for each in entries
    ):
        return None
    return [
        FileFacts(each[name], _size_of(each), checksums_of(each))
        for each in entries
        if each.get("type", "file") == "file"
    ]


def checksums_of(entry: Mapping[str, Any]) -> ExpectedChecksums:
    """The checksums of a listed file: sha256 of a large one, git blob id of any other."""
    lfs = entry.get("lfs")
    if isinstance(lfs, Mapping):
        sha256 = str(lfs.get("sha256") or lfs.get("oid") or "").lower()
        return (
            ExpectedChecksums(sha256=sha256) if _SHA256.fullmatch(sha256) else ExpectedChecksums()
        )
    blob_id = str(entry.get("blobId") or entry.get("oid") or "").lower()
    return ExpectedChecksums(git_sha1=blob_id) if _SHA1.fullmatch(blob_id) else ExpectedChecksums()


def _size_of(entry: Mapping[str, Any]) -> int | None:
    lfs = entry.get("lfs")
    size = entry.get("size")
    if size is None and isinstance(lfs, Mapping):
        size = lfs.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None


def _is_plain(answer: aiohttp.ClientResponse) -> bool:
    return answer.headers.get("Content-Encoding", "identity").lower() in {"", "identity"}


def _is_page(answer: aiohttp.ClientResponse, file: SourceFile) -> bool:
    """Whether this is a web page, such as a login page. The hub serves even HTML files as plain
    text."""
    return (
        answer.status == 200
        and answer.content_type == "text/html"
        and not file.path.lower().endswith((".html", ".htm"))
    )


def error_of_response(
    uri: HubUri, hub: Hub, status: int, headers: Mapping[str, str], body: str = ""
) -> Failure | Retryable:
    """The error for a response without content, with the hub's own message. The hub answers 401
    for missing repositories as well as for private ones."""
    page, setting = f"{hub.endpoint}/{uri.repo}", "credentials.huggingFaceToken (HF_TOKEN)"
    text = clean(headers.get("X-Error-Message", "") or error_text_of(body))
    is_disabled = text == "Access to this resource is disabled." or status == 451
    answer = f" (its answer: {text})" if text else ""
    account = "with the account of the token" if hub.token else f"and set a token in {setting}"
    hint = f" that the token in {setting} may see" if hub.token else ""
    match "Disabled" if is_disabled else headers.get("X-Error-Code", ""), status:
        case "GatedRepo", _:
            message = f"{uri.repo} is gated: accept its terms at {page} {account}"
            return Failure(Outcome.NO_ACCESS, message + answer)
        case "Disabled", _:
            message = f"the hub has disabled access to {uri.repo}: see {page}"
            return Failure(Outcome.NO_ACCESS, message + answer)
        case "RevisionNotFound", _:
            message = f"{uri.repo} has no revision {uri.revision!r}: see {page}"
            return Failure(Outcome.NOT_FOUND, message + answer)
        case "EntryNotFound", _:
            message = f"{hub.endpoint} does not have a file of {uri.repo} that it lists"
            return Failure(Outcome.TRANSIENT, message + answer)
        case _, 401 if hub.token:
            message = f"the hub rejects the token: set a valid one in {setting}"
            return Failure(Outcome.NO_ACCESS, message + answer)
        case _, 401:
            message = f"{uri.repo} is private or does not exist; for a private one set {setting}"
            return Failure(Outcome.NO_ACCESS, message + answer)
        case _, 403:
            message = f"the token in {setting} may not read {uri.repo}: give it access at {page}"
            return Failure(Outcome.NO_ACCESS, message + answer)
        case _, 404 | 410:
            return Failure(Outcome.NOT_FOUND, f"{hub.endpoint} has no {uri.repo}{hint}{answer}")
        case _, 400:
            message = f"{hub.endpoint} does not accept {uri.repo} as the name of a repository"
            return Failure(Outcome.NOT_FOUND, message + answer)
    detail = f": {text}" if text else ""
    return Retryable(f"HTTP {status} from the hub{detail}", retry_after_s=_wait_s(headers))


def error_text_of(body: str) -> str:
    """The message in the body of an error: a field of the hub's and its mirrors' JSON, else the
    body itself."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError):
        return body
    if isinstance(found, Mapping) and isinstance(found.get("errors"), list) and found["errors"]:
        found = found["errors"][0]
    named = (
        [found.get(name) for name in ("error", "message", "detail")]
        if isinstance(found, Mapping)
        else []
    )
    return next((text for text in named if isinstance(text, str)), "")


def _wait_s(headers: Mapping[str, str]) -> float:
    """The delay that the hub requests: Retry-After (seconds or a date), or its RateLimit header if
    the limit is used up (draft-ietf-httpapi-ratelimit-headers)."""
    after, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    if after.isdigit():
        return float(after)
    if after:
        try:
            return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return 0.0
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0
