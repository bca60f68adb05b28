"""The users of NATS: one for each service, with what its contract says, and two for people."""

from aim_watcher.nats_secrets import OPERATOR
from aimbus.permissions import Permissions, of_reader, of_service
from aimctl.contracts import CONSOLE as PEOPLE
from aimctl.contracts import CONTRACTS
from aimschema import subjects
from aimschema.reasons import WATCHER

CONSOLE = "console"
"""A person who looks: every command but `aimctl dead retry`."""

PERMISSIONS: dict[str, Permissions] = {
    **{
        each.service: of_service(each, keeps_streams=each.service == WATCHER)
        for each in CONTRACTS
        if each is not PEOPLE
    },
    CONSOLE: of_reader(PEOPLE.service),
    OPERATOR: of_reader(PEOPLE.service, subjects.ALL),
}
USERS = tuple(PERMISSIONS)


def sentence(user: str) -> str:
    """What a user may do, as a README says it."""
    allowed = PERMISSIONS[user]
    return (
        f"publish {', '.join(map(_code, allowed.publish))}; subscribe"
        f" {', '.join(map(_code, allowed.subscribe))}"
    )


def table() -> str:
    """What every user may do, in Markdown."""
    lines = ["| user | publish | subscribe |", "|---|---|---|"]
    for user, allowed in PERMISSIONS.items():
        lines.append(
            f"| {user} | {'<br>'.join(map(_code, allowed.publish))} |"
            f" {'<br>'.join(map(_code, allowed.subscribe))} |"
        )
    return "\n".join(lines) + "\n"


def _code(pattern: str) -> str:
    return f"`{pattern}`"
