"""What to say when none of the configured stores has the prefix. Pure.

All "no access" is no access; any "empty or not there" without a transient answer is not found;
anything else is worth another try. The message gives every store's answer, since the mistake may be
in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aim_downloader.exit_codes import Failure, Outcome

Kind = Literal["empty", "not_there", "no_access", "transient"]


@dataclass(frozen=True)
class Answer:
    """One store's answer; `detail` is its own code and words, and what to do."""

    store: str
    kind: Kind
    detail: str


_WORDS: dict[Kind, str] = {
    "empty": "nothing under that prefix",
    "not_there": "no such bucket or key",
    "no_access": "no access",
    "transient": "no usable answer",
}


def verdict(uri: str, answers: Sequence[Answer]) -> Failure:
    """The failure that the answers add up to; at least one answer."""
    kinds = {answer.kind for answer in answers}
    said = "; ".join(
        f"{answer.store}: {_WORDS[answer.kind]}" + (f" ({answer.detail})" if answer.detail else "")
        for answer in answers
    )
    if kinds == {"no_access"}:
        return Failure(Outcome.NO_ACCESS, f"no store lets us read {uri}: {said}")
    if "transient" not in kinds:
        return Failure(Outcome.NOT_FOUND, f"{uri} is in none of the stores: {said}")
    return Failure(Outcome.TRANSIENT, f"could not list {uri}: {said}")
