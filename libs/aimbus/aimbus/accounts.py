"""The server's side of the permissions: accounts, users by their NKeys, TLS, as files that a
nats.conf includes.

1. The account AIM has the streams and all our users. SYS is the system account and has no users, so
   none of our clients can read the server's own subjects.
2. A client without the key of a user is rejected, since there is no `no_auth_user`. So is every
   operation without a permission.
3. The server has only public keys. Only the user has the seed.
"""

import json
import secrets
from collections.abc import Mapping

import nkeys

from aimbus.permissions import Permissions

FOLDER = "/etc/aim/nats-server"
"""The default path of the server's certificate."""


def new_seed() -> str:
    """A new user's NKey seed."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public_key(seed: str) -> str:
    """Raises ValueError where it is no seed."""
    try:
        key: bytes = nkeys.from_seed(bytearray(seed.strip().encode())).public_key
    except (
        Exception
    ) as error:  # nkeys has its own errors, and also raises those of its dependencies
        raise ValueError("not an NKey seed") from error
    return key.decode()


def auth_conf(keys: Mapping[str, str], permissions: Mapping[str, Permissions]) -> str:
    """`keys` has the public key of each user."""
    users = "\n".join(_user(name, key, permissions[name]) for name, key in keys.items())
    return f"""\
# Made by aimctl nats init: include it in nats.conf. Public keys only.
system_account: SYS
accounts {{
  SYS {{ users: [] }}
  AIM {{
    jetstream: enabled
    users: [
{users}
    ]
  }}
}}
"""


def tls_conf(folder: str = FOLDER) -> str:
    """To be included in nats.conf, and in its `cluster` block: there servers check each other by
    it."""
    files = {"cert_file": "tls.crt", "key_file": "tls.key", "ca_file": "ca.crt"}
    lines = "\n".join(
        f"  {option}: {json.dumps(f'{folder}/{name}')}" for option, name in files.items()
    )
    return (
        "# Made by aimctl nats init: include it in nats.conf and in its cluster block.\ntls"
        f" {{\n{lines}\n  verify: false\n}}\n"
    )


def _user(name: str, key: str, allowed: Permissions) -> str:
    publish, subscribe = _list(allowed.publish), _list(allowed.subscribe)
    return f"""\
      # {name}
      {{
        nkey: {key}
        permissions: {{
          publish: {{ allow: {publish} }}
          subscribe: {{ allow: {subscribe} }}
        }}
      }}"""


def _list(patterns: tuple[str, ...]) -> str:
    """In quotes, since `$` begins a variable there."""
    lines = "".join(f"\n            {json.dumps(pattern)}" for pattern in patterns)
    return f"[{lines}\n          ]"
