"""Which files of a source are fetched. Pure.

`AIM_INCLUDE` and `AIM_EXCLUDE` are JSON lists of globs. A glob is compared with the path of a file,
and a glob without a slash also with its name; `*` matches slashes too. A file is fetched if a glob
of include matches it (or include has none) and no glob of exclude does.

Without both variables, a hub's weights are fetched once. Many repositories have the same weights as
safetensors and in older forms. In a folder that has a complete set `model*.safetensors`, these are
left out: `pytorch_model*.bin` and its index, `tf_model*.h5`, `flax_model*.msgpack`,
`rust_model*.ot`; beside any `x.safetensors`, `x.bin` too. `AIM_EXCLUDE=[]` fetches everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.source import Listing

INCLUDE, EXCLUDE = "AIM_INCLUDE", "AIM_EXCLUDE"
_SHARD = r"(?:-(?P<number>\d+)-of-(?P<count>\d+))?"
_SAFETENSORS = re.compile(rf"(?P<stem>.+?){_SHARD}\.safetensors")
_OTHER_FORMS = re.compile(
    rf"(?:pytorch_(?P<torch>model.*?){_SHARD}\.bin(?:\.index\.json)?"
    r"|(?:tf|flax|rust)_(?P<other>model.*?)(?:-\d+-of-\d+)?\.(?:h5|msgpack|ot)(?:\.index\.json)?"
    r"|(?P<same>.+?)(?:-\d+-of-\d+)?\.bin(?:\.index\.json)?)"
)


@dataclass(frozen=True)
class Selection:
    """Globs; None where the variable is not set."""

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None

    @property
    def is_default(self) -> bool:
        return self.include is None and self.exclude is None

    def matches(self, path: str) -> bool:
        is_included = not self.include or _is_matched(path, self.include)
        return is_included and not _is_matched(path, self.exclude or ())


def selection_of(env: Mapping[str, str]) -> Selection:
    """Raises Failure(NOT_FOUND) that names the variable if it is no JSON list of strings."""
    return Selection(_globs(env, INCLUDE), _globs(env, EXCLUDE))


def select(listing: Listing, selection: Selection, *, is_hub: bool) -> Listing:
    """The listing with only the files to fetch. Raises Failure(NOT_FOUND) if none is left."""
    if selection.is_default and not is_hub:
        return listing
    if not selection.is_default:
        files = tuple(file for file in listing.files if selection.matches(file.path))
        if listing.files and not files:
            message = (
                f"{INCLUDE} and {EXCLUDE} leave none of the {len(listing.files)} files: correct"
                " include and exclude"
            )
            raise Failure(Outcome.NOT_FOUND, message)
        return msgspec.structs.replace(listing, files=files)
    twice = duplicate_weights(file.path for file in listing.files)
    if not twice:
        return listing
    left_out = f"{len(twice)} files with the weights that safetensors have too are left out"
    return msgspec.structs.replace(
        listing,
        files=tuple(file for file in listing.files if file.path not in twice),
        remark="; ".join(filter(None, (listing.remark, left_out))),
    )


def duplicate_weights(paths: Iterable[str]) -> set[str]:
    """The files of older forms whose weights are complete as safetensors in the same folder."""
    listed = list(paths)
    complete = _complete_stems(listed)
    return {path for path in listed if _twin(path) in complete}


def _twin(path: str) -> tuple[str, str] | None:
    """Folder and stem of the safetensors that would hold the same weights."""
    folder, _, name = path.rpartition("/")
    match = _OTHER_FORMS.fullmatch(name)
    return (folder, match["torch"] or match["other"] or match["same"]) if match else None


def _complete_stems(paths: Iterable[str]) -> set[tuple[str, str]]:
    """Folder and stem of every set of safetensors that has all its shards."""
    shards: dict[tuple[str, str, int], set[int]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if match := _SAFETENSORS.fullmatch(name):
            count = int(match["count"] or 1)
            numbers = shards.setdefault((folder, match["stem"], count), set())
            numbers.add(int(match["number"] or 1))
    return {
        (folder, stem)
        for (folder, stem, count), numbers in shards.items()
        if 0 < count <= len(numbers)
    }


def _is_matched(path: str, globs: Iterable[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(
        fnmatchcase(path, glob) or ("/" not in glob and fnmatchcase(name, glob)) for glob in globs
    )


def _globs(env: Mapping[str, str], variable: str) -> tuple[str, ...] | None:
    text = env.get(variable, "").strip()
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        message = f'{variable} is no JSON list of globs such as ["*.json"]: correct it'
        raise Failure(Outcome.NOT_FOUND, message) from error
