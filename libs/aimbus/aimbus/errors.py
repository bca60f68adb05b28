"""What can go wrong on the bus, by what the caller should do.

All are BusErrors:

- Unreachable: retry, on a new session. SessionEnded: the connection broke. NoResponders: no service
  on that subject: JetStream is not up, or the stream or consumer was deleted.
- ApiError: JetStream responded with an error.
- MirrorStalled: AIM_STATE does not follow AIM_LOG: re-create it, or wait for the watcher.
- HistoryMoved: read the history, and decide again.
- OversizedMessage: send less.
- AccessDenied: fix the files of keys or certificates, or the server's permissions; the bus itself
  retries.
- StreamsRejected: raise a limit, or fix a stream that cannot be updated.
- BusClosed: close() was called.
"""


class BusError(Exception):
    """Base of all errors of this package."""


class Unreachable(BusError):
    """Nothing answered; the same request may be sent again."""


class SessionEnded(Unreachable):
    """The connection broke while waiting."""


class NoResponders(Unreachable):
    """No service responds on this subject."""


class ApiError(BusError):
    """JetStream rejected a request. `code` is HTTP-like, `err_code` from the server's
    errors.json."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class MirrorStalled(BusError):
    """AIM_STATE is behind AIM_LOG and has not moved for so long."""

    def __init__(self, lag: int, still_s: float) -> None:
        super().__init__(
            f"AIM_STATE is {lag} messages behind AIM_LOG and has not moved for {still_s:.0f} s"
        )
        self.lag = lag
        self.still_s = still_s


class OversizedMessage(BusError):
    """A message is larger than the server takes; nothing was sent. Sizes in bytes, headers
    included."""

    def __init__(self, subject: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"message for {subject} has {size_bytes} bytes, {limit_bytes} are possible: publish"
            " less of it or raise the server's max_payload"
        )
        self.subject = subject
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class HistoryMoved(BusError):
    """The history of an object has a later message than the caller knows; nothing was stored. Read
    it, and decide again."""


class AccessDenied(BusError):
    """The text names the setting to fix."""


class StreamsRejected(BusError):
    """The streams cannot be made as they have to be; trying again without a change of settings
    is no use."""


class BusClosed(BusError):
    """The bus was closed by its owner."""
