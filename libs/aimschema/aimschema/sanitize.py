"""Foreign text, made harmless: it may hold anything, and goes to terminals, logs and pages."""


def printable(text: str) -> str:
    """`text` with a space for everything that does not print: control characters, escapes, marks
    that turn the direction of writing, line ends."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)
