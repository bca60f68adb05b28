"""The Hugging Face hub as a source: `hf://owner/name[@revision]`.

The listing is the hub's model info with files metadata, which names the commit; everything after it
asks for that commit, so a branch that moves meanwhile changes nothing. Large files are answered
with a redirect to a content network: the signed address is kept and used for the file's other
ranges (the hub counts requests), and the token is only ever sent to the hub itself.

Mirrors leave things out. Without siblings the tree is asked for, without sizes each file; without a
commit the revision that was asked for is used, and the result says so. What is no answer of a hub
ends the run with the server's own words.
"""

from __future__ import annotations

import asyncio
import re
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
from aim_downloader.ranges import Answered, fault_of
from aim_downloader.retry import Limits, with_tries
from aim_downloader.source import Body, Listing, Says, SourceFile
from aim_downloader.trust import certificate_fault, tls_context
from aim_downloader.uri import HubUri

_INFO_TIMEOUT_S = 20.0
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PAGES_MAX = 1000
_DEFAULT_ENDPOINT = "https://huggingface.co"
_MAIN = "main"
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_TOTAL = re.compile(r"bytes\s+(?:\*|0-0)/(\d+)")


@dataclass(frozen=True)
class Hub:
    """Where the hub is, and the token if there is one."""

    endpoint: str
    token: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Hub:
        """HF_ENDPOINT and HF_TOKEN."""
        return cls(
            env.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT,
            env.get("HF_TOKEN", "").strip() or None,
        )

    def is_home(self, url: URL) -> bool:
        """Whether the token may go there: to the hub itself, also where it sends us on from http
        to https."""
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
        yield HubSource(uri, Hub.from_env(env), session, limits)


class HubSource:
    """A `Source`; see there. `listing` comes first, since it finds the commit."""

    def __init__(
        self, uri: HubUri, hub: Hub, session: aiohttp.ClientSession, limits: Limits
    ) -> None:
        self._uri = uri
        self._hub = hub
        self._session = session
        self._limits = limits
        self._revision = ""
        self._says: dict[str, Says] = {}
        self._located: dict[str, URL] = {}
        self._asking = asyncio.Semaphore(limits.files_in_flight)

    async def listing(self) -> Listing:
        info, listed = await with_tries(self._limits, lambda: asyncio.to_thread(self._ask))
        commit = str(info.get("sha") or "")
        self._revision = commit or self._uri.revision or _MAIN
        remark = (
            ""
            if commit
            else f"{self._hub.endpoint} names no commit, so the revision is only its name"
        )
        facts = [each for each in listed if not is_own(each.path)]
        self._says = {each.path: each.says for each in facts}
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._file(each)) for each in facts]
        files = (task.result() for task in asked)
        return Listing(self._revision, tuple(sorted(files, key=lambda file: file.path)), remark)

    async def says(self, file: SourceFile) -> Says:
        return self._says[file.path]

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        async with self._opened(file, (start, end)) as body:
            yield body

    @asynccontextmanager
    async def open_whole(self, file: SourceFile) -> AsyncIterator[Body]:
        async with self._opened(file, None) as body:
            yield body

    # --- the listing, in a thread

    def _ask(self) -> tuple[Mapping[str, Any], list[FileFacts]]:
        """The model info, and the files that it or else the tree lists."""
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
        return info, self._named(info.get("siblings"), "rfilename") or self._tree(
            f"{path}/tree/{quote(str(info.get('sha') or revision or _MAIN), safe='')}"
        )

    def _tree(self, url: str) -> list[FileFacts]:
        """Empty where the mirror has no tree either."""
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
            listed += self._named(page, "path")
            if not following:
                return listed
        raise Failure(Outcome.TRANSIENT, f"{self._hub.endpoint} lists {self._uri.repo} without end")

    def _named(self, listed: object, name: str) -> list[FileFacts]:
        facts = facts_of(listed, name)
        if facts is None:
            raise Failure(
                Outcome.TRANSIENT,
                f"{self._hub.endpoint} lists files of {self._uri.repo} without their names",
            )
        return facts

    def _json(self, url: str | None, params: dict[str, str]) -> tuple[Any, str | None]:
        """What the hub answers, and the address of the next page. Raises Failure or Retryable."""
        headers = build_hf_headers(token=self._hub.token or False)
        try:
            answer = get_session().get(
                str(url), headers=headers, params=params or None, timeout=_INFO_TIMEOUT_S
            )
            hf_raise_for_status(answer)
        except HfHubHTTPError as error:
            raise self._refused(error.response) from error
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

    def _refused(self, answer: httpx2.Response) -> Failure | Retryable:
        problem = refusal(self._uri, self._hub, answer.status_code, answer.headers, answer.text)
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
        """Its size is asked for where the listing has none."""
        file = SourceFile(
            facts.path, facts.size_bytes or 0, facts.says.sha256 or facts.says.git_sha1, facts.path
        )
        if facts.size_bytes is not None:
            return file
        async with self._asking:
            size_bytes, etag, says = await with_tries(self._limits, lambda: self._measured(file))
        if facts.says == Says():
            self._says[file.path] = says
        return SourceFile(file.path, size_bytes, file.tag or etag, file.key)

    async def _measured(self, file: SourceFile) -> tuple[int, str, Says]:
        """Size and ETag by HEAD, or else by a range of one byte; large files have both beside
        the redirect to them."""
        async with self._answers(file, "HEAD", None) as (answer, met):
            etag = met.get("X-Linked-Etag", "") or answer.headers.get("ETag", "")
            linked = met.get("X-Linked-Etag", "").strip('"')
            says = Says(sha256=linked) if _SHA256.fullmatch(linked) else Says()
            plain = answer.status == 200 and _is_plain(answer) and not _is_page(answer, file)
            size = met.get("X-Linked-Size", "") or (
                answer.headers.get("Content-Length", "") if plain else ""
            )
        if not size.isdigit():
            async with self._answers(file, "GET", (0, 1)) as (answer, _):
                etag = etag or answer.headers.get("ETag", "")
                total = _TOTAL.match(answer.headers.get("Content-Range", ""))
                length = (
                    answer.headers.get("Content-Length", "")
                    if answer.status == 200 and _is_plain(answer)
                    else ""
                )
                size = str(total[1]) if total else length
                if answer.status >= 400 and answer.status != 416:
                    raise refusal(self._uri, self._hub, answer.status, answer.headers)
        if not size.isdigit():
            raise Failure(Outcome.TRANSIENT, f"{self._hub.endpoint} gives no size of {file.path}")
        return int(size), etag, says

    @asynccontextmanager
    async def _opened(self, file: SourceFile, asked: tuple[int, int] | None) -> AsyncIterator[Body]:
        async with self._answers(file, "GET", asked) as (answer, _):
            self._check(answer, file, asked)
            yield answer.content

    @asynccontextmanager
    async def _answers(
        self, file: SourceFile, method: str, asked: tuple[int, int] | None
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Mapping[str, str]]]:
        """The last answer on the way to a file, and the headers of all before it."""
        try:
            async with AsyncExitStack() as stack:
                yield await self._request(stack, method, file, asked)
        except (aiohttp.ClientError, ConnectionError) as error:
            self._located.pop(file.path, None)
            server = (
                f"https://{error.host}"
                if isinstance(error, aiohttp.ClientConnectorError)
                else self._hub.endpoint
            )
            raise self._no_answer(error, "reading from the hub", server) from error

    async def _request(
        self, stack: AsyncExitStack, method: str, file: SourceFile, asked: tuple[int, int] | None
    ) -> tuple[aiohttp.ClientResponse, Mapping[str, str]]:
        url = URL(
            hf_hub_url(
                self._uri.repo, file.key, revision=self._revision, endpoint=self._hub.endpoint
            ),
            encoded=True,
        )
        url = self._located.get(file.path) or url
        wanted = {"Accept-Encoding": "identity"} | (
            {"Range": f"bytes={asked[0]}-{asked[1] - 1}"} if asked else {}
        )
        met: dict[str, str] = {}
        for _ in range(_REDIRECTS_MAX):
            token = (
                {"Authorization": f"Bearer {self._hub.token}"}
                if self._hub.is_home(url) and self._hub.token
                else {}
            )
            answer = await stack.enter_async_context(
                self._session.request(method, url, headers=wanted | token, allow_redirects=False)
            )
            if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                met |= {name.title(): value for name, value in answer.headers.items()}
                if method == "GET" and answer.status < 400 and not self._hub.is_home(url):
                    self._located[file.path] = url
                return answer, met
            met |= {name.title(): value for name, value in answer.headers.items()}
            url = url.join(URL(answer.headers["Location"], encoded=True))
        raise Retryable("too many redirects")

    def _check(
        self, answer: aiohttp.ClientResponse, file: SourceFile, asked: tuple[int, int] | None
    ) -> None:
        """Raises where the answer is not the content that was asked for."""
        if asked and (
            answer.status in {416, 501} or (answer.status == 200 and asked != (0, file.size_bytes))
        ):
            raise RangesIgnored
        if answer.status not in {200, 206}:
            self._located.pop(file.path, None)
            if self._hub.is_home(answer.url):
                raise refusal(self._uri, self._hub, answer.status, answer.headers)
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
        if fault := fault_of(answered, asked or (0, file.size_bytes), file.size_bytes):
            raise Retryable(f"{answer.url.origin()} {fault}")


@dataclass(frozen=True)
class FileFacts:
    """What a listing says of a file; a mirror may leave out all but the path."""

    path: str
    size_bytes: int | None
    says: Says


def facts_of(listed: object, name: str) -> list[FileFacts] | None:
    """The files of a model info (`rfilename`) or a tree (`path`); empty without a list, None where
    an entry has no name: some files would be missing.

    What else is malformed counts as left out.
    """
    entries = listed if isinstance(listed, list) else []
    if any(
        not isinstance(each, Mapping) or not isinstance(each.get(name), str) for each in entries
    ):
        return None
    return [
        FileFacts(each[name], _size_of(each), says_of(each))
        for each in entries
        if each.get("type", "file") == "file"
    ]


def says_of(entry: Mapping[str, Any]) -> Says:
    """What the hub says of a file: the sha256 of a large one, the git blob id of any other."""
    lfs = entry.get("lfs")
    if isinstance(lfs, Mapping):
        sha256 = str(lfs.get("sha256") or lfs.get("oid") or "").lower()
        return Says(sha256=sha256) if _SHA256.fullmatch(sha256) else Says()
    blob_id = str(entry.get("blobId") or entry.get("oid") or "").lower()
    return Says(git_sha1=blob_id) if _SHA1.fullmatch(blob_id) else Says()


def _size_of(entry: Mapping[str, Any]) -> int | None:
    lfs = entry.get("lfs")
    size = entry.get("size")
    if size is None and isinstance(lfs, Mapping):
        size = lfs.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None


def _is_plain(answer: aiohttp.ClientResponse) -> bool:
    return answer.headers.get("Content-Encoding", "identity").lower() in {"", "identity"}


def _is_page(answer: aiohttp.ClientResponse, file: SourceFile) -> bool:
    """A login page, say: the hub itself serves even HTML files as plain text."""
    return (
        answer.status == 200
        and answer.content_type == "text/html"
        and not file.path.lower().endswith((".html", ".htm"))
    )


def refusal(
    uri: HubUri, hub: Hub, status: int, headers: Mapping[str, str], body: str = ""
) -> Failure | Retryable:
    """What an answer of the hub that is no content means, with its own words. The hub says 401
    for repositories that are missing as well as for private ones."""
    page, setting = f"{hub.endpoint}/{uri.repo}", "credentials.huggingFaceToken (HF_TOKEN)"
    words = clean(headers.get("X-Error-Message", "") or words_of(body))
    disabled = words == "Access to this resource is disabled." or status == 451
    match "Disabled" if disabled else headers.get("X-Error-Code", ""), status:
        case "GatedRepo", _:
            way_out = (
                "with the account of the token" if hub.token else f"and set a token in {setting}"
            )
            outcome, message = (
                Outcome.NO_ACCESS,
                f"{uri.repo} is gated: accept its terms at {page} {way_out}",
            )
        case "Disabled", _:
            outcome, message = (
                Outcome.NO_ACCESS,
                f"the hub has disabled access to {uri.repo}: see {page}",
            )
        case "RevisionNotFound", _:
            outcome, message = (
                Outcome.NOT_FOUND,
                f"{uri.repo} has no revision {uri.revision!r}: see {page}",
            )
        case "EntryNotFound", _:
            outcome, message = (
                Outcome.TRANSIENT,
                f"{hub.endpoint} does not have a file of {uri.repo} that it lists",
            )
        case _, 401 if hub.token:
            outcome, message = (
                Outcome.NO_ACCESS,
                f"the hub refuses the token: set a valid one in {setting}",
            )
        case _, 401:
            outcome, message = (
                Outcome.NO_ACCESS,
                f"{uri.repo} is private or does not exist; for a private one set {setting}",
            )
        case _, 403:
            outcome, message = (
                Outcome.NO_ACCESS,
                f"the token in {setting} may not read {uri.repo}: give it access at {page}",
            )
        case _, 404 | 410:
            hint = f" that the token in {setting} may see" if hub.token else ""
            outcome, message = Outcome.NOT_FOUND, f"{hub.endpoint} has no {uri.repo}{hint}"
        case _, 400:
            outcome, message = (
                Outcome.NOT_FOUND,
                f"{hub.endpoint} does not take {uri.repo} as the name of a repository",
            )
        case _:
            said = f": {words}" if words else ""
            return Retryable(f"HTTP {status} from the hub{said}", retry_after_s=_wait_s(headers))
    return Failure(outcome, f"{message} (its answer: {words})" if words else message)


def words_of(body: str) -> str:
    """The message in the body of an error: of JSON as the hub and its mirrors write it, else the
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
    """How long the hub asks to be left alone: Retry-After (seconds or a date), or its RateLimit
    header where that is used up (draft-ietf-httpapi-ratelimit-headers)."""
    after, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    if after.isdigit():
        return float(after)
    if after:
        try:
            return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return 0.0
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0
