"""Trouble that lasts is said once: whatever is tried again for ever would otherwise fill the log
with one line."""


class RepeatSuppressor:
    """Which errors were said since the last `reset`, by type and text."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def first_occurrence(self, error: Exception) -> str | None:
        """The error in words, or None if it was said already."""
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        if text in self._logged:
            return None
        self._logged.add(text)
        return text

    def reset(self) -> None:
        """The trouble is over; should it come back, it is said again."""
        self._logged.clear()
