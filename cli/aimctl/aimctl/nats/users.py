"""The users of NATS: one for each service, with the permissions its contract needs, and two for
people."""

from aim_watcher.nats_secrets import OPERATOR
from aimbus.permissions import Permissions, of_reader, of_service
from aimctl.contracts import CONSOLE as PEOPLE
from aimctl.contracts import CONTRACTS
from aimschema import subjects
from aimschema.reasons import WATCHER

CONSOLE = "console"
"""The read-only user of people: every command except `aimctl dead retry`."""

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
