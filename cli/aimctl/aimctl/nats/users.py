"""The users of NATS: one for each service, with the permissions its contract needs, and two for
people."""

from aim_watcher.nats_secrets import OPERATOR
from aimbus.permissions import FORGET_HISTORY, Permissions, reader_permissions, service_permissions
from aimctl.contracts import CONSOLE as PEOPLE
from aimctl.contracts import CONTRACTS
from aimschema import subjects
from aimschema.reasons import WATCHER

CONSOLE = "console"
"""The read-only user of people: every command except `aimctl dead retry` and
`aimctl history forget`."""

PERMISSIONS: dict[str, Permissions] = {
    **{
        each.service: service_permissions(each, maintains_streams=each.service == WATCHER)
        for each in CONTRACTS
        if each is not PEOPLE
    },
    CONSOLE: reader_permissions(PEOPLE.service),
    OPERATOR: reader_permissions(PEOPLE.service, subjects.ALL, *FORGET_HISTORY),
}
USERS = tuple(PERMISSIONS)
