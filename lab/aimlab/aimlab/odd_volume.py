"""Run a program as if its volumes did not support some calls: `python -m aimlab.odd_volume
chmod=EPERM fsync=EINVAL -- PROGRAM ARG…`.

SMB shares and object stores that are mounted as file systems fail such calls. Here the kernel does
(seccomp), for that program and its children, on any path. A file system that does not report its
size needs no stand-in: /proc is one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping

_CALLS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "x86_64": {
        "chmod": (90, 91, 268, 452),
        "chown": (92, 93, 94, 260),
        "utime": (132, 235, 261, 280),
        "fsync": (74, 75),
        "flock": (73,),
        "rename": (82, 264, 316),
        "statfs": (137, 138),
        "pwrite": (18,),
    },
    "aarch64": {
        "chmod": (52, 53, 452),
        "chown": (54, 55),
        "utime": (88,),
        "fsync": (82, 83),
        "flock": (32,),
        "rename": (38, 276),
        "statfs": (43, 44),
        "pwrite": (68,),
    },
}
"""Numbers of the system calls behind each name (asm/unistd.h)."""
_LOAD = 0x20
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def answer_with(answers: Mapping[str, str]) -> None:
    """From now on this process gets these errors, by name of the call and of the errno. Raises
    OSError where the kernel has no seccomp."""
    instructions = [struct.pack("HBBI", _LOAD, 0, 0, 0)]
    for call, error in answers.items():
        for number in _CALLS[platform.machine()][call]:
            instructions.append(struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 1, number))
            instructions.append(struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | getattr(errno, error)))
    instructions.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    held = ctypes.create_string_buffer(b"".join(instructions))
    program = _Program(len(instructions), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program)),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Never returns: the program takes this process over."""
    at = sys.argv.index("--")
    answer_with(dict(each.split("=") for each in sys.argv[1:at]))
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])  # noqa: S606 - what the caller asked for


if __name__ == "__main__":
    main()
