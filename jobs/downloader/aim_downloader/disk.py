"""DEST: the files, the parts of files in transfer, and the records. All functions block.

    DEST/<path>                    a complete, verified file
    DEST/.aim-manifest.json        the record of DEST, once a revision is complete
    DEST/.aim-lock                 the downloader that is at it now (see lock.py)
    DEST/.aim-part/journal         entries of files that were placed since then
    DEST/.aim-part/<name>.data     a file in transfer; <name> is a hash of its path
    DEST/.aim-part/<name>.done     a header (version and range size), then a line with the index of
                                   each finished range

A name in DEST never shows half a file: a part is renamed into place after it is verified and
synced. Modes are best effort, and so is syncing on a file system without it: some volumes (SMB,
object stores as file systems) reject both.

Another writer on the volume can put anything at these names. No link is followed, no open waits for
a pipe, and no record leads out of DEST. Anything but a regular file with one name counts as missing
and is replaced."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec

from aim_downloader.exit_codes import Failure, Outcome
from aim_downloader.manifest import MANIFEST_NAME, Entry, Manifest, decode, decode_journal, encode
from aim_downloader.paths import is_safe
from aim_downloader.ranges import Range, cut
from aim_downloader.source import SourceFile

FILE_MODE = 0o644
FOLDER_MODE = 0o755
_PARTS = ".aim-part"
_READ_BYTES = 1024 * 1024
_INDEX_DIGITS_MAX = 18
_UNSUPPORTED = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EBADF}
)
"""Errors of file systems for calls that they do not support."""


def free_bytes(dest: Path) -> int | None:
    """Bytes that an unprivileged user may still write to the file system of DEST; None if
    unknown."""
    try:
        return free_of(os.statvfs(dest))
    except OSError:
        return None


def free_of(facts: os.statvfs_result) -> int | None:
    """Free bytes. A file system with zero blocks in total reports no size: the free space is
    unknown (None)."""
    block_bytes = facts.f_frsize or facts.f_bsize
    return facts.f_bavail * block_bytes if facts.f_blocks > 0 and block_bytes > 0 else None


def make_dest(dest: Path) -> None:
    """Create DEST if it is missing."""
    if not dest.is_dir():
        dest.mkdir(parents=True, exist_ok=True)
        _set_mode(dest, FOLDER_MODE)


def prepare(dest: Path) -> None:
    """Create the folder of parts if it is missing. Remove everything but regular files from it."""
    make_dest(dest)
    parts = dest / _PARTS
    if not _is_real_folder(parts):
        parts.unlink(missing_ok=True)
        _make_folder(parts)
    for found in parts.iterdir():
        _remove_unless_plain(found)


def is_settled(dest: Path) -> bool:
    """Whether no earlier run left parts."""
    return not os.path.lexists(dest / _PARTS)


def size_on_disk(dest: Path, path: str) -> int | None:
    """Bytes of the regular file at the path. None without one: a link, or a file behind a link,
    does not count."""
    try:
        facts = (dest / path).lstat()
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) and not _through_link(dest, path) else None


def read_manifest(dest: Path) -> Manifest | None:
    try:
        return decode(read_plain(dest / MANIFEST_NAME))
    except OSError:
        return None


def read_journal(dest: Path) -> list[Entry]:
    if not _is_real_folder(dest / _PARTS):
        return []
    try:
        return decode_journal(read_plain(dest / _PARTS / "journal"))
    except OSError:
        return []


def finished_bytes(dest: Path, file: SourceFile, range_bytes: int) -> int:
    """Bytes of the file in ranges that an earlier run finished."""
    return sum(rng.size_bytes for rng in _finished_ranges(dest, file, range_bytes))


def allocated_bytes(dest: Path, file: SourceFile) -> int:
    """Bytes that the part of a file already uses, with unfinished ranges. This space is reused, so
    it need not be free now."""
    try:
        return min(
            file.size_bytes, (dest / _PARTS / f"{_part_name(file)}.data").lstat().st_blocks * 512
        )
    except OSError:
        return 0


def drop_other_parts(dest: Path, files: Iterable[SourceFile]) -> None:
    """Remove the parts of other files than these."""
    needed = {"journal"} | {
        _part_name(file) + suffix for file in files for suffix in (".data", ".done")
    }
    for found in (dest / _PARTS).iterdir():
        if found.name not in needed:
            found.unlink()


def remove_files(dest: Path, paths: Iterable[str]) -> None:
    """Remove files, and folders that become empty. Unsafe paths are ignored."""
    for path in filter(is_safe, paths):
        if size_on_disk(dest, path) is None:
            continue
        (dest / path).unlink()
        for folder in PurePosixPath(path).parents[:-1]:
            try:
                (dest / folder).rmdir()
            except OSError:
                break


def manifest_digest(dest: Path) -> str:
    """The sha256 of the manifest; empty without one."""
    try:
        return hashlib.sha256(read_plain(dest / MANIFEST_NAME)).hexdigest()
    except OSError:
        return ""


def write_manifest(dest: Path, manifest: Manifest) -> str:
    """Replace the manifest atomically, then remove the parts and the journal. Returns the sha256 of
    the manifest."""
    content = encode(manifest)
    temporary = dest / _PARTS / "manifest"
    _remove_unless_plain(dest / MANIFEST_NAME)
    with open(temporary, "wb", opener=_open_plain) as out:
        _set_mode(out.fileno(), FILE_MODE)
        out.write(content)
        out.flush()
        _sync(out.fileno())
    _rename(temporary, dest / MANIFEST_NAME)
    _sync_folder(dest)
    shutil.rmtree(dest / _PARTS, ignore_errors=True)
    return hashlib.sha256(content).hexdigest()


def read_plain(path: Path) -> bytes:
    with open(path, "rb", opener=_open_plain) as content:
        return content.read()


def create_plain(path: Path, data: bytes) -> bool:
    """Create a file; False if the name is taken. Atomic on every file system (O_EXCL)."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        return False
    try:
        os.write(handle, data)
    finally:
        os.close(handle)
    return True


def rewrite_plain(path: Path, data: bytes) -> None:
    """Write the same number of bytes again, which renews the file's time."""
    handle = _open_plain(path, os.O_WRONLY)
    try:
        os.pwrite(handle, data, 0)
        _sync(handle)
    finally:
        os.close(handle)


def is_plain(path: Path) -> bool:
    try:
        return _is_plain(path.lstat())
    except OSError:
        return False


def remove_any(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    _remove_unless_plain(path)
    path.unlink(missing_ok=True)


def read_through(path: Path, take: Callable[[bytes], None]) -> None:
    """Feed a whole file to `take`."""
    with open(path, "rb", opener=_open_plain) as content:
        while data := content.read(_READ_BYTES):
            take(data)


def write_small(dest: Path, file: SourceFile, data: bytes | bytearray) -> None:
    """Write a whole file beside its place. `place_small` moves it there."""
    path = dest / _PARTS / f"{_part_name(file)}.data"
    _remove_unless_plain(path)
    handle = _open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        _write_all(handle, 0, data)
        _set_mode(handle, FILE_MODE)
    finally:
        os.close(handle)  # a network volume reports its errors here


def place_small(dest: Path, placed: Iterable[tuple[SourceFile, Entry]]) -> None:
    """Sync these files together, rename them into place and add their entries to the journal.
    One sync of the file system costs as much as that of one file."""
    files = list(placed)
    paths = [dest / _PARTS / f"{_part_name(file)}.data" for file, _ in files]
    if not _sync_file_system(dest / _PARTS):
        for path in paths:
            _sync_path(path)
    folders = set()
    for path, (file, _) in zip(paths, files, strict=True):
        target = _clear_way(dest, file.path)
        _rename(path, target)
        folders.add(target.parent)
    for folder in folders:
        _sync_folder(folder)
    with open(dest / _PARTS / "journal", "ab", opener=_open_plain) as journal:
        journal.write(b"".join(msgspec.json.encode(entry) + b"\n" for _, entry in files))


def begun_paths(dest: Path, files: Iterable[SourceFile]) -> set[str]:
    """The files of which an earlier run has a record."""
    try:
        found = {path.name for path in (dest / _PARTS).iterdir()}
    except OSError:
        return set()
    return {file.path for file in files if f"{_part_name(file)}.done" in found}


class Part:
    """A file in transfer: its data, and the indexes of its finished ranges. Open from construction
    to `close`."""

    def __init__(self, dest: Path, file: SourceFile, range_bytes: int) -> None:
        self.file = file
        self.ranges = cut(file.size_bytes, range_bytes)
        self._dest = dest
        self._data_path = dest / _PARTS / f"{_part_name(file)}.data"
        self._done_path = dest / _PARTS / f"{_part_name(file)}.done"
        for path in (self._data_path, self._done_path):
            _remove_unless_plain(path)
        self.finished = {rng.index for rng in _finished_ranges(dest, file, range_bytes)}
        self._data = _open_plain(
            self._data_path, os.O_RDWR | os.O_CREAT | (0 if self.finished else os.O_TRUNC)
        )
        # Rewritten, since a record torn by a kill would run into the next one.
        self._done = _open_plain(self._done_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(
            self._done,
            b"".join(
                line + b"\n"
                for line in (
                    _header(file, range_bytes),
                    *(b"%d" % index for index in self.finished),
                )
            ),
        )

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all bytes. Raises OSError (ENOSPC, EDQUOT)."""
        _write_all(self._data, offset, data)

    def finish(self, rng: Range) -> None:
        """Record that the range is written."""
        os.write(self._done, b"%d\n" % rng.index)
        self.finished.add(rng.index)

    def read(self, rng: Range, take: Callable[[bytes], None]) -> None:
        """Feed a finished range to `take`, in order."""
        at = rng.start
        while at < rng.end:
            data = os.pread(self._data, min(_READ_BYTES, rng.end - at), at)
            if not data:
                raise OSError(f"{self._data_path} is shorter than was written")
            take(data)
            at += len(data)

    def place(self, entry: Entry) -> None:
        """Rename the complete file into place and add its entry to the journal."""
        _set_mode(self._data, FILE_MODE)
        _sync(self._data)
        target = _clear_way(self._dest, self.file.path)
        _rename(self._data_path, target)
        _sync_folder(target.parent)
        with open(self._dest / _PARTS / "journal", "ab", opener=_open_plain) as journal:
            journal.write(msgspec.json.encode(entry) + b"\n")
        self._done_path.unlink()

    def discard(self) -> None:
        """Delete data and record. After `close`, a new Part can be constructed."""
        self._done_path.unlink(missing_ok=True)
        self._data_path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._done)


def _write_all(handle: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _part_name(file: SourceFile) -> str:
    return hashlib.sha256(file.path.encode()).hexdigest()[:40]


def _header(file: SourceFile, range_bytes: int) -> bytes:
    return msgspec.json.encode({"file": file, "range_bytes": range_bytes})


def _finished_ranges(dest: Path, file: SourceFile, range_bytes: int) -> list[Range]:
    """Ranges that are recorded as finished for this version of the file, and that the data file
    covers."""
    stem = dest / _PARTS / _part_name(file)
    try:
        header, *lines = read_plain(stem.with_suffix(".done")).split(b"\n")
        data_bytes = stem.with_suffix(".data").lstat().st_size
    except OSError:
        return []
    if header != _header(file, range_bytes):
        return []
    # Text after the last newline is a record that a kill cut: its digits may begin another number.
    recorded = {
        int(line) for line in lines[:-1] if line.isdigit() and len(line) <= _INDEX_DIGITS_MAX
    }
    return [
        rng
        for rng in cut(file.size_bytes, range_bytes)
        if rng.index in recorded and rng.end <= data_bytes
    ]


def _clear_way(dest: Path, path: str) -> Path:
    """Create the folders of a path. A link or file of an earlier revision at a folder's name is
    removed, never followed."""
    folder = dest
    for segment in path.split("/")[:-1]:
        folder /= segment
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()
        _make_folder(folder)
    target = dest / path
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    return target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir()
    except FileExistsError:
        return
    _set_mode(folder, FOLDER_MODE)


def _through_link(dest: Path, path: str) -> bool:
    return any((dest / folder).is_symlink() for folder in PurePosixPath(path).parents[:-1])


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_plain(facts: os.stat_result) -> bool:
    """Whether it is a regular file with one name. A second hard link could be a file elsewhere."""
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink <= 1


def _remove_unless_plain(path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(facts.st_mode):
        shutil.rmtree(path)
    elif not _is_plain(facts):
        path.unlink()


def _open_plain(path: str | Path, flags: int) -> int:
    """Open a regular file; follow no link, and do not wait for a pipe. Raises OSError for anything
    else."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return handle


def _set_mode(target: Path | int, mode: int) -> None:
    """Best effort: readers only need the mode on a volume that has modes."""
    with suppress(OSError):
        os.chmod(target, mode)  # noqa: PTH101 (a descriptor too)


def _sync(handle: int) -> None:
    """Raises OSError if data could not be written. A file system without fsync is accepted."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync_path(path: Path) -> None:
    handle = _open_plain(path, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync_file_system(folder: Path) -> bool:
    """Sync the whole file system (syncfs(2), which Python lacks). False where that is not
    possible."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(handle) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(handle)
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(folder))


def _sync_folder(folder: Path) -> None:
    """Sync a folder, and so the names in it. Not every file system can open or sync a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        message = (
            f"{target}: the volume cannot rename files ({error.strerror}): use a storage class"
            " whose file system can"
        )
        raise Failure(Outcome.TRANSIENT, message) from error
