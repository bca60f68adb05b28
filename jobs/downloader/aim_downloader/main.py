"""The command line: `aim-downloader fetch URI DEST`, `size URI`, `verify URI DEST`.

Every run ends with one result line and with the exit code in that line. Only a wrong command line
ends with 2 and a usage message. SIGTERM and SIGINT stop the run with exit code 20; the fetched
ranges stay for the next run.
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
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import UNSET

from aim_downloader import disk
from aim_downloader.commands import Done, Verb, fetch, no_space, open_source, size, verify
from aim_downloader.exit_codes import EXIT_CODE, Failure, Outcome
from aim_downloader.report import Reporter, Result, secrets_in
from aim_downloader.retry import Limits
from aim_downloader.selection import selection_of
from aim_downloader.uri import UriError, parse_uri

_DEFAULT_TERMINATION_LOG = "/dev/termination-log"
_RECORD_BYTES = 4096
"""The space to report as needed when only the manifest or journal did not fit: one block."""


@dataclass(frozen=True)
class Command:
    """A parsed command line; `dest` is None for `size`."""

    verb: str
    uri: str
    dest: Path | None = None


def parse(argv: Sequence[str]) -> Command:
    """Exits with 2 and names the argument if the command line is wrong. `run` parses the URI: its
    errors have a result line."""
    parser = argparse.ArgumentParser(
        prog="aim-downloader",
        description=(
            "Fill a model cache volume from hf://owner/name[@revision] or s3://bucket/prefix."
        ),
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("fetch", "make DEST hold the source's current revision"),
        ("size", "print bytes and files"),
        ("verify", "read DEST and verify it"),
    ):
        subparser = verbs.add_parser(verb, help=text)
        subparser.add_argument("uri", metavar="URI")
        if verb != "size":
            subparser.add_argument("dest", metavar="DEST", type=Path)
    return Command(**vars(parser.parse_args(argv)))


async def run(
    command: Command,
    env: Mapping[str, str],
    reporter: Reporter,
    limits: Limits,
    free_bytes: Callable[[Path], int | None] = disk.free_bytes,
) -> int:
    """Run the command, print the result line and return the exit code. A cancelled run returns 20
    after its result line."""
    started_s, done = time.monotonic(), Done()
    failure = None
    try:
        await _run_verb(command, env, Verb(command.uri, reporter, limits, done, free_bytes))
    except asyncio.CancelledError:
        failure = Failure(Outcome.TRANSIENT, "stopped by a signal; the next run resumes")
    except Exception as error:
        failure = _failure_to_report(error, command, done, free_bytes)
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
        manifest_digest=done.manifest_digest or UNSET,
    )
    reporter.result(result)
    return result.exit_code


async def _run_verb(command: Command, env: Mapping[str, str], verb: Verb) -> None:
    try:
        uri = parse_uri(command.uri)
    except UriError as error:
        raise Failure(Outcome.NOT_FOUND, str(error)) from error
    verb = replace(verb, selection=selection_of(env))
    async with open_source(uri, env, verb.limits) as source:
        if command.dest is None:
            await size(verb, source)
        elif command.verb == "fetch":
            await fetch(verb, source, command.dest)
        else:
            await verify(verb, source, command.dest)


def _failure_to_report(
    error: BaseException, command: Command, done: Done, free_bytes: Callable[[Path], int | None]
) -> Failure:
    """Of several failures, the one with the lowest exit code: another run would not cure it."""
    failures = [_failure_from(cause, command, done, free_bytes) for cause in _flatten(error)]
    return min(failures, key=lambda failure: EXIT_CODE[failure.outcome])


def _failure_from(
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
    )  # the location, not the text: it may hold a signed URL
    return Failure(Outcome.TRANSIENT, f"{type(error).__name__}: {error}")


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for nested in error.exceptions:
            yield from _flatten(nested)
    else:
        yield error


async def _run_until_signal(command: Command, reporter: Reporter) -> int:
    job = asyncio.ensure_future(run(command, os.environ, reporter, Limits()))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, job.cancel)
    return await job


def main() -> None:
    """Run the console script."""
    command = parse(sys.argv[1:])
    path = os.environ.get("AIM_TERMINATION_LOG", "")
    reporter = Reporter(
        sys.stdout,
        secrets=secrets_in(os.environ),
        termination_log=Path(path or _DEFAULT_TERMINATION_LOG),
        make_termination_log=bool(path),
    )
    sys.exit(asyncio.run(_run_until_signal(command, reporter)))
