"""Counters of a run, and the progress lines made from them. No I/O; time is a parameter."""

from __future__ import annotations

import threading
from collections import deque

from aim_downloader.report import Progress

_WINDOW_S = 10.0


class Meter:
    """Counts bytes and files. The rate covers the last ten seconds: a pause shows soon, and a burst
    does not mislead. `add_received`, `add_checked` and `count_file` may be called from threads."""

    def __init__(self, total_bytes: int, files: int, *, verifying: bool = False) -> None:
        self._total = total_bytes
        self._files = files
        self._downloads = not verifying
        self._lock = threading.Lock()
        self._got = 0
        self._checked = 0
        self._files_done = 0
        self._file = ""
        self._samples: deque[tuple[float, int]] = deque()

    def add_existing(self, size_bytes: int, *, files: int = 0) -> None:
        """Add bytes, or complete files, that need no transfer. They do not count as speed."""
        self._got += size_bytes
        self._checked += size_bytes if files else 0
        self._files_done += files
        self._samples.clear()

    def add_received(self, size_bytes: int, path: str) -> None:
        with self._lock:
            self._got += size_bytes
        self._file = path

    @property
    def left_bytes(self) -> int:
        """Bytes that are not received yet."""
        return max(0, self._total - self._got)

    def discard(self, size_bytes: int) -> None:
        """Subtract bytes of wrong content; they are fetched a second time."""
        self._got -= size_bytes
        self._checked -= size_bytes
        self._samples.clear()

    def add_checked(self, size_bytes: int, path: str) -> None:
        with self._lock:
            self._checked += size_bytes
        if self._verifying:
            self._file = path

    def count_file(self) -> None:
        with self._lock:
            self._files_done += 1

    @property
    def _verifying(self) -> bool:
        return not self._downloads or self._got >= self._total

    def line(self, now_s: float) -> Progress:
        """The state at `now_s`, any monotonic clock."""
        count = self._checked if self._verifying else self._got
        if self._samples and self._samples[-1][1] > count:
            self._samples.clear()
        self._samples.append((now_s, count))
        while now_s - self._samples[0][0] > _WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        since_s, before = self._samples[0]
        rate = (count - before) / (now_s - since_s) if now_s > since_s else 0.0
        left = self._total - count
        seconds_left = round(left / rate, 1) if rate > 0 else None
        return Progress(
            phase="verifying" if self._verifying else "downloading",
            bytes=count,
            total=self._total,
            rate=round(rate, 1),
            seconds_left=0.0 if left == 0 else seconds_left,
            file=self._file,
            files_done=self._files_done,
            files=self._files,
        )
