"""The permissions that recorded API calls used, for the check of least privilege. Pure."""

from collections.abc import Iterable, Sequence

from aimkube.rbac import Grant
from aimlab.apiserver.access import ACCOUNT_PREFIX, Call


def used_grants(grants: Sequence[Grant], calls: Iterable[Call], accounts_in: str) -> set[Grant]:
    """The grants that calls needed; one for a namespace stands before one for all.
    `accounts_in`: the namespace of the accounts."""
    found = set()
    for call in calls:
        *_, namespace, account = call.user.split(":")
        if (
            call.user != f"{ACCOUNT_PREFIX}:{accounts_in}:{account}"
            or namespace != accounts_in
            or not call.granted
        ):
            continue
        fitting = [
            grant
            for grant in grants
            if (grant.account, grant.group, grant.resource, grant.verb)
            == (account, call.group, call.resource, call.verb)
        ]
        near = [grant for grant in fitting if grant.namespace == call.namespace]
        found.update(near or [grant for grant in fitting if not grant.namespace])
    return found
