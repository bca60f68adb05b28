"""Suppress repeated log lines for a persistent error: endless retries would fill the log with one
line."""


class RepeatSuppressor:
    """The errors logged since the last `reset`, by type and text."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def first_occurrence(self, error: Exception) -> str | None:
        """The error as text, or None if it was logged already."""
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        if text in self._logged:
            return None
        self._logged.add(text)
        return text

    def reset(self) -> None:
        """The problem is over; if it returns, it is logged again."""
        self._logged.clear()
