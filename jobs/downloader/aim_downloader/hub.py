"""The Hugging Face hub as a source: `hf://owner/name[@revision]`.

The listing is the hub's model info with files metadata, which names the commit; everything after it asks for that commit, so a branch that
moves meanwhile changes nothing. Large files are answered with a redirect to a content network: the signed address is kept and used for the
file's other ranges (the hub counts requests), and the token is only ever sent to the hub itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from huggingface_hub import HfApi, ModelInfo, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # (documented under this name)
from yarl import URL

from aim_downloader.outcome import Failure, Outcome, Retryable
from aim_downloader.paths import is_own
from aim_downloader.retry import Limits, with_tries
from aim_downloader.source import Body, Listing, Says, SourceFile
from aim_downloader.uri import HubUri

_INFO_TIMEOUT_S = 20.0
_REDIRECTS_MAX = 5
_DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class Hub:
    """Where the hub is, and the token if there is one."""

    endpoint: str
    token: str | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Hub:
        """HF_ENDPOINT and HF_TOKEN."""
        return cls(env.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT, env.get("HF_TOKEN", "").strip() or None)


@asynccontextmanager
async def open_hub(uri: HubUri, env: Mapping[str, str], limits: Limits) -> AsyncIterator[HubSource]:
    """The source for the duration of a run."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0)
    connector = aiohttp.TCPConnector(limit=limits.ranges_in_flight)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=True, auto_decompress=False) as session:
        yield HubSource(uri, Hub.from_env(env), session, limits)


class HubSource:
    """A `Source`; see there. `listing` comes first, since it finds the commit."""

    def __init__(self, uri: HubUri, hub: Hub, session: aiohttp.ClientSession, limits: Limits) -> None:
        self._uri = uri
        self._hub = hub
        self._session = session
        self._limits = limits
        self._commit = ""
        self._says: dict[str, Says] = {}
        self._located: dict[str, URL] = {}

    async def listing(self) -> Listing:
        info = await with_tries(self._limits, lambda: asyncio.to_thread(self._model_info))
        siblings = [sibling for sibling in info.siblings or [] if not is_own(sibling.rfilename)]
        if not info.sha or any(sibling.size is None for sibling in siblings):
            raise Failure(Outcome.TRANSIENT, f"{self._hub.endpoint} lists {self._uri.repo} without its commit or sizes")
        self._commit = info.sha
        self._says = {sibling.rfilename: says_of(sibling) for sibling in siblings}
        files = (SourceFile(s.rfilename, s.size or 0, _tag(self._says[s.rfilename]), s.rfilename) for s in siblings)
        return Listing(info.sha, tuple(sorted(files, key=lambda file: file.path)))

    async def says(self, file: SourceFile) -> Says:
        return self._says[file.path]

    @asynccontextmanager
    async def open_range(self, file: SourceFile, start: int, end: int) -> AsyncIterator[Body]:
        try:
            async with AsyncExitStack() as stack:
                answer = await self._request(stack, file, start, end)
                yield answer.content
        except (aiohttp.ClientError, ConnectionError) as error:
            self._located.pop(file.path, None)
            raise Retryable(f"{type(error).__name__} while reading from the hub") from error

    def _model_info(self) -> ModelInfo:
        api = HfApi(endpoint=self._hub.endpoint, token=self._hub.token or False)
        try:
            return api.model_info(self._uri.repo, revision=self._uri.revision, files_metadata=True, timeout=_INFO_TIMEOUT_S)
        except HfHubHTTPError as error:
            raise refusal(self._uri, self._hub, error.response.status_code, error.response.headers) from error
        except HFValidationError as error:
            raise Failure(Outcome.NOT_FOUND, f"the hub cannot have a repository {self._uri.repo}: {error}") from error
        except Exception as error:
            raise Retryable(f"{type(error).__name__} while asking {self._hub.endpoint}") from error

    async def _request(self, stack: AsyncExitStack, file: SourceFile, start: int, end: int) -> aiohttp.ClientResponse:
        home = URL(self._hub.endpoint).origin()
        commit_url = hf_hub_url(self._uri.repo, file.key, revision=self._commit, endpoint=self._hub.endpoint)
        url = self._located.get(file.path) or URL(commit_url, encoded=True)
        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        for _ in range(_REDIRECTS_MAX):
            at_home = url.origin() == home
            headers = wanted | ({"Authorization": f"Bearer {self._hub.token}"} if at_home and self._hub.token else {})
            answer = await stack.enter_async_context(self._session.get(url, headers=headers, allow_redirects=False))
            if answer.status in {301, 302, 303, 307, 308} and "Location" in answer.headers:
                url = url.join(URL(answer.headers["Location"], encoded=True))
                continue
            if answer.status == 206 or (answer.status == 200 and (start, end) == (0, file.size_bytes)):
                if not at_home:
                    self._located[file.path] = url
                return answer
            self._located.pop(file.path, None)
            if at_home:
                raise refusal(self._uri, self._hub, answer.status, answer.headers)
            raise Retryable(f"HTTP {answer.status} from {url.host}")
        raise Retryable("too many redirects")


def says_of(sibling: RepoSibling) -> Says:
    """What the hub says of a file: the sha256 of a large one, the git blob id of any other."""
    return Says(sha256=sibling.lfs.sha256) if sibling.lfs else Says(git_sha1=sibling.blob_id or "")


def refusal(uri: HubUri, hub: Hub, status: int, headers: Mapping[str, str]) -> Failure | Retryable:
    """What an answer of the hub that is no content means. The hub says 401 for repositories that are missing as well as for private ones."""
    page, setting = f"{hub.endpoint}/{uri.repo}", "credentials.huggingFaceToken (HF_TOKEN)"
    disabled = headers.get("X-Error-Message", "") == "Access to this resource is disabled."
    match "Disabled" if disabled else headers.get("X-Error-Code", ""), status:
        case "GatedRepo", _:
            way_out = "with the account of the token" if hub.token else f"and set a token in {setting}"
            outcome, message = Outcome.NO_ACCESS, f"{uri.repo} is gated: accept its terms at {page} {way_out}"
        case "Disabled", _:
            outcome, message = Outcome.NO_ACCESS, f"the hub has disabled access to {uri.repo}: see {page}"
        case "RevisionNotFound", _:
            outcome, message = Outcome.NOT_FOUND, f"{uri.repo} has no revision {uri.revision!r}: see {page}"
        case _, 401 if hub.token:
            outcome, message = Outcome.NO_ACCESS, f"the hub refuses the token: set a valid one in {setting}"
        case _, 401:
            outcome, message = Outcome.NO_ACCESS, f"{uri.repo} is private or does not exist; for a private one set {setting}"
        case _, 403:
            outcome, message = Outcome.NO_ACCESS, f"the token in {setting} may not read {uri.repo}: give it access at {page}"
        case _, 404:
            hint = f" that the token in {setting} may see" if hub.token else ""
            outcome, message = Outcome.NOT_FOUND, f"{hub.endpoint} has no {uri.repo}{hint}"
        case _, 400:
            outcome, message = Outcome.NOT_FOUND, f"{hub.endpoint} does not take {uri.repo} as the name of a repository"
        case _:
            return Retryable(f"HTTP {status} from the hub", retry_after_s=_wait_s(headers))
    return Failure(outcome, message)


def _wait_s(headers: Mapping[str, str]) -> float:
    """How long the hub asks to be left alone: Retry-After, or its RateLimit header where that is used up (draft-ietf-httpapi-ratelimit-headers)."""
    after, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    if after.isdigit():
        return float(after)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0


def _tag(says: Says) -> str:
    return says.sha256 or says.git_sha1
