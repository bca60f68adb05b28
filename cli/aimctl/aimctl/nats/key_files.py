"""Keys and certificates as files, as pods have them mounted, for a NATS server on this machine
that asks for them."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aim_watcher.nats_secrets import AUTH, CA, SEED, SERVER, TLS, Secrets, desired_secrets, of_user
from aimbus import NatsCredentials
from aimbus.accounts import tls_conf
from aimschema.names import SYSTEM_NAMESPACE

NATS_KEYS = "nats-keys"
"""The folder of a guard among what a command keeps."""
LOG_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Guard:
    """`folder` has the files of each Secret in a folder of the Secret's name. `log` has the
    server's last lines."""

    folder: Path
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    @property
    def includes(self) -> tuple[Path, Path]:
        """For the server's configuration."""
        return self.folder / SERVER / AUTH, self.folder / SERVER / TLS

    def access(self, user: str) -> NatsCredentials:
        own = self.folder / of_user(user)
        return NatsCredentials(str(own / SEED), str(own / CA))

    def lay_out(self, *rotate: str) -> None:
        """Write the files as `aimctl nats init` would have them, keeping what is there but for
        `rotate`."""
        existing: Secrets = {
            place.name: {file.name: file.read_bytes() for file in place.iterdir()}
            for place in self.folder.glob("*")
        }
        for name, data in desired_secrets(
            existing, SYSTEM_NAMESPACE, rotate, datetime.now(UTC)
        ).items():
            place = self.folder / name
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for key, value in data.items():
                (place / key).touch(mode=0o600)
                (place / key).write_bytes(value)
        self.includes[1].write_text(tls_conf(str(self.folder / SERVER)))


def create_guard(folder: Path) -> Guard:
    """A new guard with its files laid out."""
    guard = Guard(folder)
    guard.lay_out()
    return guard
