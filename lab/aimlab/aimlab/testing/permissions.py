"""What RBAC manifests grant to ServiceAccounts, and what of it was used: the two sides of least
privilege. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from aimkube.rbac import Grant
from aimlab.apiserver.access import ACCOUNT_PREFIX, Call
from aimschema.resources import qualified

Body = dict[str, Any]
EVERYWHERE = "every namespace"


def used(grants: Sequence[Grant], calls: Iterable[Call], accounts_in: str) -> set[Grant]:
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


def sentence(grants: Sequence[Grant], account: str) -> str:
    """What an account may do, as a README says it."""
    own = [grant for grant in grants if grant.account == account]
    places = []
    for namespace, found in groupby(own, key=lambda grant: grant.namespace):
        alike = groupby(_rows(found), key=lambda row: [grant.verb for grant in row[1]])
        said = [
            f"{', '.join(what for what, _ in rows)}: {', '.join(verbs)}" for verbs, rows in alike
        ]
        places.append(f"in {namespace or EVERYWHERE} {'; '.join(said)}")
    return "; ".join(places)


def table(grants: Sequence[Grant], needed: set[Grant]) -> str:
    """Granted and used of every account, in Markdown."""
    lines = ["| service | where | what | granted | used |", "|---|---|---|---|---|"]
    for (account, namespace), found in groupby(
        grants, key=lambda grant: (grant.account, grant.namespace)
    ):
        for what, verbs in _rows(found):
            said = ", ".join(grant.verb for grant in verbs)
            was = ", ".join(grant.verb for grant in verbs if grant in needed) or "never"
            lines.append(f"| {account} | {namespace or EVERYWHERE} | {what} | {said} | {was} |")
    return "\n".join(lines) + "\n"


def _rows(grants: Iterable[Grant]) -> Iterator[tuple[str, list[Grant]]]:
    """By resource: what it is called (as kubectl does: `pods/log`, `jobs.batch`), and the grants
    on it."""
    for (group, resource, names), found in groupby(
        grants, key=lambda grant: (grant.group, grant.resource, grant.names)
    ):
        plural, slash, subresource = resource.partition("/")
        yield (
            f"`{qualified(plural, group)}{slash}{subresource}`"
            + "".join(f" named `{name}`" for name in names),
            list(found),
        )
