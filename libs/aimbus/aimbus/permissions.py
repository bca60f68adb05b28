"""Who may send and hear what on NATS: one user a service, and two for people. Pure.

1. What is not listed is refused: publishing and subscribing each have only a list of what is allowed, and no reply is allowed by being asked.
2. A service says only what its README says it emits. The watcher alone publishes objects and makes streams.
3. Replies come to an inbox of the user's own, so that nobody reads or sends what is meant for another.
4. Reading is by consumers of AIM_STATE with several filters, whose subjects are in the request and not in its subject, so NATS cannot limit by
   subject what of the bus a service reads. The bus holds no secrets.
5. Who may make a consumer may name any subject for it to deliver to. That is no way around the rest: the server delivers only where somebody
   subscribes to that very subject, streams subscribe by wildcard, and inboxes that are subscribed to as such have random names (tests/scenario).
"""

from dataclasses import dataclass

from aimbus.access import inbox_prefix
from aimbus.streams import LOG, STATE
from aimschema import subjects
from aimschema.reasons import CACHER, DEPLOYER, DISCOVERY, ROUTER, STATUSWRITER, WATCHER
from aimschema.resources import CACHE, MODEL, SERVICE, TEMPLATE

CONSOLE = "console"
"""A person who looks: aimctl, but for `aimctl dead retry`."""
OPERATOR = "operator"
"""A person who may also send again what nobody could read: `aimctl dead retry`. No process of ours uses this key."""
_PEOPLE = "aimctl"

EMITS: dict[str, tuple[str, ...]] = {
    WATCHER: (f"{subjects.OBJECT}.>", f"{subjects.SYNCED}.*"),
    STATUSWRITER: (),
    DISCOVERY: (subjects.reports(TEMPLATE.kind, DISCOVERY), subjects.reports(MODEL.kind, DISCOVERY)),
    CACHER: (subjects.reports(CACHE.kind, CACHER), subjects.reports(TEMPLATE.kind, CACHER), f"{subjects.LIVE_PROGRESS}.{CACHE.kind}.*.*"),
    DEPLOYER: (subjects.reports(SERVICE.kind, DEPLOYER), subjects.reports(CACHE.kind, DEPLOYER)),
    ROUTER: (subjects.reports(SERVICE.kind, ROUTER),),
}
"""What each service says beside its actions (with what it remembers of them) and its dead letters."""
USERS = (*EMITS, CONSOLE, OPERATOR)

_READ_STATE = (
    f"$JS.API.STREAM.INFO.{STATE}",
    f"$JS.API.STREAM.MSG.GET.{LOG}",  # whether the mirror is level with the log
    f"$JS.API.CONSUMER.CREATE.{STATE}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{STATE}.*",
)
_READ_LOG = (f"$JS.API.STREAM.INFO.{LOG}", f"$JS.API.CONSUMER.CREATE.{LOG}.*", f"$JS.API.CONSUMER.MSG.NEXT.{LOG}.*")
_KEEP_STREAMS = (
    "$JS.API.INFO",
    f"$JS.API.STREAM.INFO.{LOG}",
    *(f"$JS.API.STREAM.{verb}.{stream}" for stream in (LOG, STATE) for verb in ("CREATE", "UPDATE")),
    f"$JS.API.STREAM.DELETE.{STATE}",  # AIM_LOG is never deleted
    f"$JS.API.STREAM.PURGE.{LOG}",
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects, with wildcards, that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(user: str) -> Permissions:
    """Raises KeyError for a name that is not in USERS."""
    if user in {CONSOLE, OPERATOR}:
        resends = (subjects.ALL,) if user == OPERATOR else ()
        return Permissions((*resends, *_READ_STATE, *_READ_LOG), _hears(_PEOPLE, f"{subjects.LIVE_PROGRESS}.>"))
    acts = () if user == WATCHER else (f"{subjects.ACTION}.{user}.>",)
    streams = _KEEP_STREAMS if user == WATCHER else ()
    return Permissions((*EMITS[user], *acts, subjects.letters(user), *_READ_STATE, *streams), _hears(user))


def _hears(name: str, *more: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(name)}.>", *more)


def sentence(user: str) -> str:
    """What a user may do, as a README says it."""
    allowed = permissions(user)
    return f"publish {_listed(allowed.publish)}; subscribe {_listed(allowed.subscribe)}"


def table() -> str:
    """What every user may do, in Markdown."""
    lines = ["| user | publish | subscribe |", "|---|---|---|"]
    lines += [f"| {user} | {_cell(permissions(user).publish)} | {_cell(permissions(user).subscribe)} |" for user in USERS]
    return "\n".join(lines) + "\n"


def _listed(patterns: tuple[str, ...]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def _cell(patterns: tuple[str, ...]) -> str:
    return "<br>".join(f"`{pattern}`" for pattern in patterns)
