"""`aim-downloader fetch URI DEST`, `size URI`, `verify URI DEST`.

Always ends with one result line, whatever happens, and with the exit code it names; only a wrong
command line ends with 2 and a usage message. SIGTERM and SIGINT stop the run and keep what was got
(20).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from aim_downloader import disk
from aim_downloader.commands import Done, Verb, fetch, no_space, open_source, size, verify
from aim_downloader.exit_codes import EXIT_CODE, Failure, Outcome
from aim_downloader.report import Reporter, Result, secrets_in
from aim_downloader.retry import Limits
from aim_downloader.uri import UriError, parse_uri

_DEFAULT_TERMINATION_LOG = "/dev/termination-log"
_RECORD_BYTES = 4096
"""What is needed when all content is written and only our own records do not fit any more: a
block."""


@dataclass(frozen=True)
class Command:
    """A parsed command line; `dest` is None for `size`."""

    verb: str
    uri: str
    dest: Path | None = None


def parse(argv: Sequence[str]) -> Command:
    """Exits with 2, naming the argument, where the command line is wrong. The URI is looked at
    later: its mistakes have a result line."""
    parser = argparse.ArgumentParser(
        prog="aim-downloader",
        description=(
            "Fill a model cache volume from hf://owner/name[@revision] or s3://bucket/prefix."
        ),
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("fetch", "make DEST hold the source's current revision"),
        ("size", "tell bytes and files"),
        ("verify", "read DEST again and check it"),
    ):
        known = verbs.add_parser(verb, help=text)
        known.add_argument("uri", metavar="URI")
        if verb != "size":
            known.add_argument("dest", metavar="DEST", type=Path)
    return Command(**vars(parser.parse_args(argv)))


async def run(
    command: Command,
    env: Mapping[str, str],
    reporter: Reporter,
    limits: Limits,
    free_bytes: Callable[[Path], int | None] = disk.free_bytes,
) -> int:
    """Do it, print the result line, and return the exit code. Cancelled, it still does both
    (20)."""
    started_s, done = time.monotonic(), Done()
    failure = None
    try:
        await _act(command, env, Verb(command.uri, reporter, limits, done, free_bytes))
    except asyncio.CancelledError:
        failure = Failure(
            Outcome.TRANSIENT, "stopped by a signal; what is there is kept for the next run"
        )
    except Exception as error:
        failure = _worst(error, command, done, free_bytes)
    outcome = failure.outcome if failure else Outcome.DONE
    needed, free = (failure.needed_bytes, failure.free_bytes) if failure else (None, None)
    result = Result(
        outcome=outcome,
        exit_code=EXIT_CODE[outcome],
        message=failure.message if failure else done.message,
        uri=command.uri,
        revision=done.revision,
        bytes=done.size_bytes,
        files=done.files,
        seconds=round(time.monotonic() - started_s, 3),
        needed_bytes=UNSET if needed is None else needed,
        free_bytes=UNSET if free is None else free,
    )
    reporter.result(result)
    return result.exit_code


async def _act(command: Command, env: Mapping[str, str], verb: Verb) -> None:
    try:
        uri = parse_uri(command.uri)
    except UriError as error:
        raise Failure(Outcome.NOT_FOUND, str(error)) from error
    async with open_source(uri, env, verb.limits) as source:
        if command.dest is None:
            await size(verb, source)
        elif command.verb == "fetch":
            await fetch(verb, source, command.dest)
        else:
            await verify(verb, source, command.dest)


def _worst(
    error: BaseException, command: Command, done: Done, free_bytes: Callable[[Path], int | None]
) -> Failure:
    """The failure a person should hear of first: of several, the one that another try would not
    cure."""
    failures = [_failure(each, command, done, free_bytes) for each in _flatten(error)]
    return min(failures, key=lambda failure: EXIT_CODE[failure.outcome])


def _failure(
    error: BaseException, command: Command, done: Done, free_bytes: Callable[[Path], int | None]
) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT} and command.dest:
        needed_bytes = max(done.left_bytes, _RECORD_BYTES)
        return no_space(
            command.dest, needed_bytes, free_bytes(command.dest), quota=error.errno == errno.EDQUOT
        )
    if isinstance(error, OSError) and error.filename:
        return Failure(Outcome.TRANSIENT, f"{error.filename}: {error.strerror}")
    if (
        isinstance(error, OSError)
        and error.strerror
        and command.dest
        and not isinstance(error, ConnectionError)
    ):
        return Failure(Outcome.TRANSIENT, f"{command.dest}: {error.strerror}")
    traceback.print_tb(
        error.__traceback__, file=sys.stderr
    )  # where, but not the text: it may hold a signed URL
    return Failure(Outcome.TRANSIENT, f"{type(error).__name__}: {error}")


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flatten(each)
    else:
        yield error


async def _until_told(command: Command, reporter: Reporter) -> int:
    job = asyncio.ensure_future(run(command, os.environ, reporter, Limits()))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, job.cancel)
    return await job


def main() -> None:
    """The console script."""
    command = parse(sys.argv[1:])
    place = os.environ.get("AIM_TERMINATION_LOG", "")
    reporter = Reporter(
        sys.stdout,
        secrets=secrets_in(os.environ),
        termination_log=Path(place or _DEFAULT_TERMINATION_LOG),
        make_termination_log=bool(place),
    )
    sys.exit(asyncio.run(_until_told(command, reporter)))
