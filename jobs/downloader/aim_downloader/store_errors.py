"""The failure of a run when no configured store has the prefix. Pure.

If all stores answer "no access", it is NO_ACCESS. With a transient answer of any store it is
TRANSIENT. Otherwise it is NOT_FOUND. The message gives the answer of every store, since the mistake
may be in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aim_downloader.exit_codes import Failure, Outcome

Kind = Literal["empty", "not_there", "no_access", "transient"]


@dataclass(frozen=True)
class Answer:
    """The answer of one store. `detail` has its error code and message, and what to do."""

    store: str
    kind: Kind
    detail: str


_SUMMARY: dict[Kind, str] = {
    "empty": "nothing under that prefix",
    "not_there": "no such bucket or key",
    "no_access": "no access",
    "transient": "no usable answer",
}


def failure_from_answers(uri: str, answers: Sequence[Answer]) -> Failure:
    """The failure for these answers; at least one answer."""
    kinds = {answer.kind for answer in answers}
    details = "; ".join(
        f"{answer.store}: {_SUMMARY[answer.kind]}"
        + (f" ({answer.detail})" if answer.detail else "")
        for answer in answers
    )
    if kinds == {"no_access"}:
        return Failure(Outcome.NO_ACCESS, f"no store gives read access to {uri}: {details}")
    if "transient" not in kinds:
        return Failure(Outcome.NOT_FOUND, f"{uri} is in none of the stores: {details}")
    return Failure(Outcome.TRANSIENT, f"could not list {uri}: {details}")
