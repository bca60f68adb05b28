"""The permissions on Kubernetes and NATS as the READMEs and docs pages list them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from aimctl.nats.users import PERMISSIONS
from aimkube.rbac import Grant
from aimschema.resources import qualified_name

EVERYWHERE = "every namespace"


def grants_sentence(grants: Sequence[Grant], account: str) -> str:
    """The permissions of an account, as its README lists them."""
    own = [grant for grant in grants if grant.account == account]
    parts = []
    for namespace, found in groupby(own, key=lambda grant: grant.namespace):
        alike = groupby(_rows(found), key=lambda row: [grant.verb for grant in row[1]])
        phrases = [
            f"{', '.join(what for what, _ in rows)}: {', '.join(verbs)}" for verbs, rows in alike
        ]
        parts.append(f"in {namespace or EVERYWHERE} {'; '.join(phrases)}")
    return "; ".join(parts)


def grants_table(grants: Sequence[Grant], needed: set[Grant]) -> str:
    """The permissions of every account, granted and used, in Markdown."""
    lines = ["| service | where | what | granted | used |", "|---|---|---|---|---|"]
    for (account, namespace), found in groupby(
        grants, key=lambda grant: (grant.account, grant.namespace)
    ):
        for what, verbs in _rows(found):
            granted = ", ".join(grant.verb for grant in verbs)
            used = ", ".join(grant.verb for grant in verbs if grant in needed) or "never"
            lines.append(f"| {account} | {namespace or EVERYWHERE} | {what} | {granted} | {used} |")
    return "\n".join(lines) + "\n"


def _rows(grants: Iterable[Grant]) -> Iterator[tuple[str, list[Grant]]]:
    """Each resource as kubectl names it (`pods/log`, `jobs.batch`), with the grants on it."""
    for (group, resource, names), found in groupby(
        grants, key=lambda grant: (grant.group, grant.resource, grant.names)
    ):
        plural, slash, subresource = resource.partition("/")
        yield (
            f"`{qualified_name(plural, group)}{slash}{subresource}`"
            + "".join(f" named `{name}`" for name in names),
            list(found),
        )


def nats_sentence(user: str) -> str:
    """The permissions of a NATS user, as its README lists them."""
    allowed = PERMISSIONS[user]
    return (
        f"publish {', '.join(map(_code, allowed.publish))}; subscribe"
        f" {', '.join(map(_code, allowed.subscribe))}"
    )


def nats_table() -> str:
    """The permissions of every NATS user, in Markdown."""
    lines = ["| user | publish | subscribe |", "|---|---|---|"]
    for user, allowed in PERMISSIONS.items():
        lines.append(
            f"| {user} | {'<br>'.join(map(_code, allowed.publish))} |"
            f" {'<br>'.join(map(_code, allowed.subscribe))} |"
        )
    return "\n".join(lines) + "\n"


def _code(pattern: str) -> str:
    return f"`{pattern}`"
