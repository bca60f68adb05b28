"""NATS with a key for each service, permissions and TLS: the whole scenario passes, and everything
else is rejected.

The table of the attempts is in docs/how-to/nats.md; `AIM_WRITE_GOLDEN=1` regenerates it.
"""

import asyncio
import contextlib
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from aim_watcher.nats_secrets import OPERATOR, SEED, of_user
from aimbus import (
    HISTORY,
    Appended,
    NatsCredentials,
    NatsServer,
    append_history,
    connect,
    ensure_history,
    ensure_streams,
    forget_history,
    read_history,
    read_newest,
)
from aimbus.accounts import new_seed
from aimbus.streams import LOG, STATE
from aimctl.component_registry import SERVICES
from aimctl.local.ports import free_ports
from aimctl.local.processes import Children
from aimctl.local.services import start_service
from aimctl.nats.key_files import Guard, create_guard
from aimctl.nats.users import CONSOLE, USERS
from aimlab.cli.environment import control_plane_on_laptop, kubectl, kubectl_env
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.testing import commands, eventually
from aimschema.messages import SpecVersion
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, WATCHER
from aimschema.resources import Key

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "nats.md"
BEGIN = "<!-- written by tests/scenario/test_nats_permissions.py -->\n\n"
PEOPLE = {CONSOLE, OPERATOR}


class Attempt(NamedTuple):
    """Something on NATS, and who alone may do it."""

    verb: str
    subject: str
    may: set[str]


def publish(subject: str, *may: str) -> Attempt:
    return Attempt("publish", subject, set(may))


def subscribe(subject: str, *may: str) -> Attempt:
    return Attempt("subscribe", subject, set(may))


ATTEMPTS = [
    publish("aim.object.ModelCache.ml.x", WATCHER, OPERATOR),
    publish("aim.synced.ModelCache", WATCHER, OPERATOR),
    publish("aim.report.AIMServiceTemplate.ml.x.discovery", DISCOVERY, OPERATOR),
    publish("aim.report.AIMClusterModel.-.x.discovery", DISCOVERY, OPERATOR),
    publish("aim.report.ModelCache.ml.x.cacher", CACHER, OPERATOR),
    publish("aim.report.AIMServiceTemplate.ml.x.cacher", CACHER, OPERATOR),
    publish("aim.report.AIMService.ml.x.cacher", OPERATOR),
    publish("aim.report.AIMService.ml.x.deployer", DEPLOYER, OPERATOR),
    publish("aim.report.ModelCache.ml.x.deployer", DEPLOYER, OPERATOR),
    publish("aim.report.AIMService.ml.x.router", ROUTER, OPERATOR),
    publish("aim.report.AIMService.ml.x.statuswriter", OPERATOR),
    *(publish(f"aim.action.{user}.Job.ml.x", *({user} - {WATCHER}), OPERATOR) for user in SERVICES),
    *(publish(f"aim.dead.{user}.Job.ml.x", user, OPERATOR) for user in SERVICES),
    publish("aim.dead.cacher.unreadable.object.Job.ml.x", CACHER, OPERATOR),
    publish("aimlive.progress.ModelCache.ml.x", CACHER),
    publish("aimhistory.ModelCache.ml.x", WATCHER),
    publish("aimlive.other"),
    publish("other"),
    publish(f"$JS.API.STREAM.CREATE.{LOG}", WATCHER),
    publish(f"$JS.API.STREAM.UPDATE.{STATE}", WATCHER),
    publish(f"$JS.API.STREAM.PURGE.{LOG}", WATCHER),
    publish(f"$JS.API.STREAM.DELETE.{STATE}", WATCHER),
    publish(f"$JS.API.STREAM.DELETE.{LOG}"),
    publish(f"$JS.API.STREAM.PURGE.{STATE}"),
    publish(f"$JS.API.STREAM.CREATE.{HISTORY}", WATCHER),
    publish(f"$JS.API.STREAM.DELETE.{HISTORY}"),
    publish(f"$JS.API.STREAM.PURGE.{HISTORY}", OPERATOR),
    publish(f"$JS.API.STREAM.MSG.DELETE.{HISTORY}", OPERATOR),
    publish(f"$JS.API.CONSUMER.CREATE.{HISTORY}.mine", WATCHER, *PEOPLE),
    publish(f"$JS.API.CONSUMER.MSG.NEXT.{HISTORY}.mine", WATCHER, *PEOPLE),
    publish(f"$JS.API.DIRECT.GET.{HISTORY}", WATCHER, *PEOPLE),
    publish("$JS.API.STREAM.CREATE.OTHER"),
    publish("$JS.API.STREAM.NAMES"),
    publish(f"$JS.API.STREAM.MSG.DELETE.{LOG}"),
    publish(f"$JS.API.STREAM.SNAPSHOT.{LOG}"),
    publish(f"$JS.API.STREAM.INFO.{LOG}", WATCHER, *PEOPLE),
    publish(f"$JS.API.STREAM.INFO.{STATE}", *USERS),
    publish(f"$JS.API.CONSUMER.CREATE.{STATE}.mine", *USERS),
    publish(f"$JS.API.CONSUMER.MSG.NEXT.{STATE}.mine", *USERS),
    publish(f"$JS.API.CONSUMER.CREATE.{LOG}.mine", *PEOPLE),
    publish(f"$JS.API.CONSUMER.MSG.NEXT.{LOG}.mine", *PEOPLE),
    publish(f"$JS.API.CONSUMER.NAMES.{STATE}"),
    publish(f"$JS.API.CONSUMER.LIST.{STATE}", *PEOPLE),
    publish(f"$JS.API.CONSUMER.LIST.{LOG}", *PEOPLE),
    publish("$JS.API.INFO", WATCHER, *PEOPLE),
    publish(f"$JS.API.CONSUMER.INFO.{STATE}.theirs"),
    publish(f"$JS.API.CONSUMER.DELETE.{STATE}.theirs"),
    publish(f"$JS.API.CONSUMER.DURABLE.CREATE.{STATE}.theirs"),
    publish(f"$JS.ACK.{STATE}.theirs.1.1.1.1.0"),
    publish("$JS.API.ACCOUNT.PURGE.AIM"),
    publish("$SYS.REQ.SERVER.PING"),
    publish("$SYS.REQ.ACCOUNT.AIM.CONNZ"),
    *(publish(f"_INBOX_{user}.x") for user in (*SERVICES, "aimctl")),
    publish("_INBOX.x"),
    *(subscribe(f"_INBOX_{user}.>", user) for user in SERVICES),
    subscribe("_INBOX_aimctl.>", *PEOPLE),
    subscribe("aimlive.progress.>", *PEOPLE),
    subscribe("_INBOX.>"),
    subscribe("aim.>"),
    subscribe("$JS.>"),
    subscribe("$SYS.>"),
    subscribe(">"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return create_guard(tmp_path_factory.mktemp("keys"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    guard: Guard, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[NatsServer]:
    """Without streams: what is allowed finds nothing to destroy."""
    server = NatsServer(tmp_path_factory.mktemp("nats"), includes=guard.includes)
    await server.start()
    yield server
    await server.stop()


class Caller(NamedTuple):
    client: Client
    denials: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(server: NatsServer, guard: Guard) -> AsyncIterator[dict[str, Caller]]:
    """A bare client for each user: it sends what it likes."""
    made = {}
    for user in USERS:
        denials: list[str] = []

        async def on_error(error: Exception, into: list[str] = denials) -> None:
            into.append(str(error))

        access = guard.access(user)
        assert access.ca is not None
        context = ssl.create_default_context(cafile=access.ca)
        made[user] = Caller(
            await nats.connect(server.url, nkeys_seed=access.creds, tls=context, error_cb=on_error),
            denials,
        )
    yield made
    for caller in made.values():
        await caller.client.close()


async def is_denied(caller: Caller, attempt: Attempt) -> bool:
    """The server answers in order: what it has to say of an attempt comes before the answer to
    the ping behind it."""
    caller.denials.clear()
    if attempt.verb == "publish":
        await caller.client.publish(attempt.subject, b"{}")
    else:
        await (await caller.client.subscribe(attempt.subject)).unsubscribe()
    while caller.client.pending_data_size:  # noqa: ASYNC110 (flush would send its ping before what waits in the buffer)
        await asyncio.sleep(0)
    await caller.client.flush()
    verb = "Publish to" if attempt.verb == "publish" else "Subscription to"
    assert all(
        f'violation for {verb} "{attempt.subject}"'.lower() in denial.lower()
        for denial in caller.denials
    ), caller.denials
    return bool(caller.denials)


@pytest.mark.parametrize(
    "attempt", ATTEMPTS, ids=lambda attempt: f"{attempt.verb}-{attempt.subject}"
)
async def test_only_who_may_can(callers: dict[str, Caller], attempt: Attempt) -> None:
    assert {user for user in USERS if not await is_denied(callers[user], attempt)} == attempt.may


async def test_the_page_shows_what_was_tried(callers: dict[str, Caller]) -> None:
    lines = [f"| tried | {' | '.join(USERS)} |", "|---" * (len(USERS) + 1) + "|"]
    for attempt in ATTEMPTS:
        answers = [
            "refused" if await is_denied(callers[user], attempt) else "yes" for user in USERS
        ]
        lines.append(f"| {attempt.verb} `{attempt.subject}` | {' | '.join(answers)} |")
    head, begin, _ = PAGE.read_text().partition(BEGIN)
    page = head + begin + "\n".join(lines) + "\n"
    if os.environ.get("AIM_WRITE_GOLDEN"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


async def test_a_consumer_that_delivers_elsewhere_is_no_way_around(
    tmp_path: Path, guard: Guard
) -> None:
    server = NatsServer(tmp_path / "nats", includes=guard.includes)
    url = await server.start()
    watcher = await connect(url, name="aim-watcher", access=guard.access(WATCHER))
    cacher = await connect(url, name="aim-cacher", access=guard.access(CACHER))
    await ensure_streams(watcher)
    session, inboxes = await cacher.session(), (await watcher.session()).client
    arrived: list[str] = []

    async def note(message: Msg) -> None:
        arrived.append(message.subject)

    await inboxes.subscribe("_INBOX_watcher.*", cb=note)
    own = "aim.report.ModelCache.ml.x.cacher"
    await session.request(own, b"forged")
    for number, elsewhere in enumerate(("aim.object.ModelCache.ml.x", "_INBOX_watcher.x")):
        config = {
            "name": f"evil{number}",
            "deliver_subject": elsewhere,
            "deliver_policy": "all",
            "ack_policy": "none",
            "filter_subject": own,
        }
        body = json.dumps({"stream_name": STATE, "config": config, "action": "create"}).encode()
        answer = json.loads(
            (await session.request(f"$JS.API.CONSUMER.CREATE.{STATE}.evil{number}", body)).data
        )
        assert answer["config"]["deliver_subject"] == elsewhere
    await asyncio.sleep(0.5)  # nothing is to happen
    info = json.loads(
        (await (await watcher.session()).request(f"$JS.API.STREAM.INFO.{LOG}", b"")).data
    )
    assert (info["state"]["messages"], arrived) == (1, [])
    await cacher.close()
    await watcher.close()
    await server.stop()


async def test_people_read_the_history_the_operator_removes_it(
    tmp_path: Path, guard: Guard
) -> None:
    server = NatsServer(tmp_path / "nats", includes=guard.includes)
    url = await server.start()
    watcher, console, operator = [
        await connect(url, name=name, access=guard.access(user))
        for name, user in (("aim-watcher", WATCHER), ("aimctl", CONSOLE), ("aimctl", OPERATOR))
    ]
    await ensure_history(watcher)
    version = SpecVersion(
        kind="ModelCache", namespace="ml", name="x", uid="u", generation=1, resource_version="1",
        spec={},
    )  # fmt: skip
    await append_history(watcher, [Appended(version, 0)], source="aim-watcher")
    for reader in (watcher, console, operator):
        assert len([item async for item in read_history(reader, ["aimhistory.>"])]) == 1
        assert len(await read_newest(reader, "aimhistory.>") or ()) == 1
    key = Key("ModelCache", "ml", "x")
    with pytest.raises(TimeoutError):
        await forget_history(console, key)
    assert "may not publish to $JS.API.STREAM.PURGE.AIM_HISTORY" in console.trouble
    assert await forget_history(operator, key) == 1
    for bus in (watcher, console, operator):
        await bus.close()
    await server.stop()


async def test_all_services_do_their_work_without_a_denial(
    tmp_path: Path,
) -> None:
    guard = create_guard(tmp_path / "keys")
    async with control_plane_on_laptop(tmp_path / "lab", guard=guard) as stack:
        await kubectl(stack.lab, "apply", "-f", str(stack.quickstart.manifests))
        await kubectl(
            stack.lab,
            "wait",
            f"aimsvc/{SERVICE}",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "--timeout=60s",
        )
        operator = await connect(stack.nats_url, name="aimctl", access=guard.access(OPERATOR))
        await operator.publisher.resend("aim.report.ModelCache.ml.x.cacher", b"unreadable", {})
        aimctl = Aimctl(kubectl_env(stack.lab) | {"AIM_NATS_URL": stack.nats_url}, guard)

        async def has_dead_letters() -> bool:
            return "unreadable message" in (await aimctl(CONSOLE, "dead"))[1]

        await eventually(has_dead_letters, "dead letters of the unreadable message")
        here = ("-n", NAMESPACE)
        of_service = [
            [verb, f"aimsvc/{SERVICE}", *here] for verb in ("timeline", "explain", "wait")
        ]
        for looking in (
            *of_service,
            ["get", *here],
            ["get", *here, "--at", "0s"],
            ["history", f"aimsvc/{SERVICE}", *here],
            ["blame", f"aimsvc/{SERVICE}", *here],
            ["record", "-o", str(tmp_path / "recording"), *here],
            ["top", "--once"],
            ["doctor"],
        ):
            code, output = await aimctl(CONSOLE, *looking)
            assert code == 0, output
        assert violations(guard) == []
        code, output = await aimctl(CONSOLE, "dead", "retry", "--all")
        assert (
            code,
            "AIM_NATS_CREDS: this user may not publish to aim.dead.>" in " ".join(output.split()),
        ) == (1, True), output
        guard.log.clear()
        code, output = await aimctl(OPERATOR, "dead", "retry", "--all")
        assert code == 0, output
        await kubectl(stack.lab, "delete", f"aimsvc/{SERVICE}", "-n", NAMESPACE)
        await kubectl(
            stack.lab,
            "wait",
            f"httproute/{SERVICE}",
            "-n",
            NAMESPACE,
            "--for=delete",
            "--timeout=20s",
        )
        assert violations(guard) == []
        await operator.close()
        assert not any(seed in log for seed in seeds_of(guard) for log in logs_of(tmp_path / "lab"))


def seeds_of(guard: Guard) -> list[str]:
    return [(guard.folder / of_user(user) / SEED).read_text() for user in USERS]


def logs_of(lab: Path) -> list[str]:
    return [file.read_text() for file in (lab / "log").iterdir()]


class Aimctl:
    """`aimctl` with a user's key; gives exit code and output."""

    def __init__(self, env: dict[str, str], guard: Guard) -> None:
        self._env = env
        self._guard = guard

    async def __call__(self, user: str, *args: str) -> tuple[int | None, str]:
        access = self._guard.access(user)
        env = self._env | {
            "AIM_NATS_CREDS": access.creds or "",
            "AIM_NATS_CA": access.ca or "",
            "COLUMNS": "200",
        }
        return await commands.run(env, "aimctl", *args)


def violations(guard: Guard) -> list[str]:
    return [line for line in guard.log if re.search("violation|authorization", line, re.IGNORECASE)]


@contextlib.asynccontextmanager
async def reported_by(
    server: NatsServer, access: NatsCredentials, url: str | None = None
) -> AsyncIterator[asyncio.Queue[str]]:
    """The statuses of the cacher's connection while the block runs."""
    problems: asyncio.Queue[str] = asyncio.Queue()
    connecting = asyncio.create_task(
        connect(url or server.url, name="aim-cacher", access=access, on_status=problems.put_nowait)
    )
    async with asyncio.timeout(15):
        yield problems
    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await (await connecting).close()


class Files(NamedTuple):
    """The cacher's files, and a folder for wrong ones."""

    folder: Path
    guard: Guard

    def with_(self, *, creds: str | None = None, ca: str | None = None) -> NatsCredentials:
        """Access by files of which one or both have other contents."""
        right = self.guard.access(CACHER)
        return NatsCredentials(
            right.creds if creds is None else self._new("seed", creds),
            right.ca if ca is None else self._new("ca", ca),
        )

    def _new(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def files(tmp_path: Path, guard: Guard) -> Files:
    return Files(tmp_path, guard)


@pytest.mark.parametrize(
    ("access", "fragment"),
    [
        pytest.param(
            lambda files: NatsCredentials(None, files.with_().ca),
            "AIM_NATS_CREDS: the server requires an NKey",
            id="no-key",
        ),
        pytest.param(
            lambda files: files.with_(creds=new_seed()),
            "AIM_NATS_CREDS: the server does not know the key",
            id="wrong-key",
        ),
        pytest.param(
            lambda files: files.with_(creds="hello"),
            "holds neither an NKey seed nor NATS credentials",
            id="no-seed",
        ),
        pytest.param(
            lambda files: files.with_(creds="-BEGIN USER NKEY SEED-"),
            "AIM_NATS_CREDS: ",
            id="half-credentials",
        ),
        pytest.param(
            lambda files: NatsCredentials(str(files.folder / "no")),
            "no cannot be read: No such file or directory",
            id="no-file",
        ),
        pytest.param(lambda files: files.with_(ca="hello"), "AIM_NATS_CA: ", id="no-certificate"),
        pytest.param(
            lambda files: NatsCredentials(files.with_().creds),
            "AIM_NATS_CA: the server's certificate is not valid",
            id="no-ca",
        ),
    ],
)
async def test_problems_of_the_files_are_reported(
    server: NatsServer, files: Files, access: Callable[[Files], NatsCredentials], fragment: str
) -> None:
    async with reported_by(server, access(files)) as problems:
        assert fragment in await problems.get()


async def test_a_server_that_does_not_encrypt_is_not_spoken_to(
    guard: Guard, tmp_path: Path
) -> None:
    plain = NatsServer(tmp_path / "nats")
    url = await plain.start()
    for access, at in (
        (guard.access(CACHER), url),
        (NatsCredentials(), url.replace("nats:", "tls:")),
    ):
        async with reported_by(plain, access, at) as problems:
            assert "AIM_NATS_CA: the server does not offer TLS" in await problems.get()
    await plain.stop()


async def test_a_key_is_replaced_while_the_service_runs(tmp_path: Path) -> None:
    guard = create_guard(tmp_path / "keys")
    server = NatsServer(tmp_path / "nats", includes=guard.includes)
    url = await server.start()
    problems: asyncio.Queue[str] = asyncio.Queue()
    bus = await connect(
        url, name="aim-cacher", access=guard.access(CACHER), on_status=problems.put_nowait
    )
    seed = guard.folder / of_user(CACHER) / SEED
    old = seed.read_text()
    guard.lay_out(CACHER)
    new = seed.read_text()
    seed.write_text(old)  # the server's Secret arrives before the service's
    session = await bus.session()
    server.reload()
    async with asyncio.timeout(20):
        await session.ended
        while "the server does not know the key" not in await problems.get():
            pass
        seed.write_text(new)
        await bus.session()
        while await problems.get():
            pass
    assert bus.trouble == ""
    await bus.close()
    await server.stop()


async def test_a_missing_permission_is_named_and_works_once_granted(
    tmp_path: Path,
) -> None:
    guard = create_guard(tmp_path / "keys")
    config = guard.includes[0]
    right = config.read_text()
    config.write_text(
        right.replace("aim.report.ModelCache.*.*.cacher", "aim.report.ModelCache.*.*.former")
    )
    server = NatsServer(tmp_path / "nats", includes=guard.includes)
    url = await server.start()
    watcher = await connect(url, name="aim-watcher", access=guard.access(WATCHER))
    await ensure_streams(watcher)
    problems: asyncio.Queue[str] = asyncio.Queue()
    cacher = await connect(
        url, name="aim-cacher", access=guard.access(CACHER), on_status=problems.put_nowait
    )
    sending = asyncio.create_task(
        cacher.publisher.resend("aim.report.ModelCache.ml.x.cacher", b"{}", {})
    )
    async with asyncio.timeout(30):
        while "this user may not publish to aim.report.>" not in await problems.get():
            pass
        config.write_text(right)
        server.reload()
        await sending
        while await problems.get():
            pass
    await cacher.close()
    await watcher.close()
    await server.stop()


async def test_readyz_names_a_missing_permission_until_granted(
    server: NatsServer, files: Files, tmp_path: Path
) -> None:
    wrong = files.with_(creds=new_seed())
    async with (
        Children(tmp_path / "log") as children,
        aiohttp.ClientSession(trust_env=False) as http,
    ):
        url = await start_service(
            children,
            CACHER,
            nats_url=server.url,
            kubeconfig=tmp_path / "none",
            port=free_ports(1)[0],
            access=lambda _: wrong,
        )

        async def ready() -> str:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                return ""

        async def is_reported() -> bool:
            return "nats: AIM_NATS_CREDS: the server does not know the key" in await ready()

        await eventually(is_reported, "/readyz names the setting")
        files.with_(creds=Path(files.with_().creds or "").read_text())  # noqa: ASYNC240 (a small file)

        async def connected() -> bool:
            return "nats-connected" in children.log_of(CACHER).read_text()

        await eventually(connected, "the service goes on")
        lines = children.log_of(CACHER).read_text().splitlines()
        assert len([line for line in lines if "does not know the key" in line]) == 1
