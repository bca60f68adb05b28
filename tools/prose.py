"""Check the prose of the pages: `python -m tools.prose [PAGE ...]` prints each finding. Without a
page it checks all. Exit code 1 if there is a finding.

1. A sentence has at most 25 words.
2. A code span, several code spans in a row, and a number with its unit are one word each.
3. List items, headings and the parts of a table cell between semicolons are sentences of their own.
   Code blocks are not checked. Generated tables, which quote messages, may have long ones.
4. A private word is one that this project once used in a sense of its own. Kubernetes has another
   word for it (docs/explanation/glossary.md).
5. proselint checks the same text for clichés, redundant and weasel words (docs/adr/0031-prose.md).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proselint import checks
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).parents[1]
MAX_WORDS = 25
PRIVATE = re.compile(
    r"\b(anew|nobody|somebody|anybody|whoever|foresaw|foreseen|puts? right|ever more rarely"
    r"|tells?|told|said|at work|stands? by|looks? again|fought with|(?<!dead )letters?)\b",
    re.IGNORECASE,
)

RULES = {
    "max_errors": 100,
    "checks": {
        "redundancy.misc.after_the_deadline": False,  # takes "and etcd" for "and etc"
        "archaism": True,
        "cliches": True,
        "hedging": True,
        "industrial_language.corporate_speak": True,
        "malapropisms": True,
        "mixed_metaphors": True,
        "mondegreens": True,
        "nonwords": True,
        "oxymorons": True,
        "redundancy": True,
        "uncomparables": True,
        "weasel_words": True,
    },
}
CheckRegistry().register_many(checks.__register__)
CODE = re.compile(r"``?[^`]+``?")
UNIT = re.compile(r"(?<=\d) (?:ms|s|minutes|hours|days|kB|MB|GB|TB|%)\b")


class Finding(NamedTuple):
    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """All pages of the repository that people write. bench/RESULTS.md is output of a command."""
    return sorted(
        {
            *ROOT.glob("*.md"),
            *(ROOT / ".github").rglob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *ROOT.glob("*/*/README.md"),
        }
    )


def findings(page: Path) -> list[Finding]:
    text = page.read_text()
    generated = generated_lines(text)
    found = []
    numbered = list(sentences(text))
    for line, sentence in numbered:
        if (count := len(split_words(sentence))) > MAX_WORDS and line not in generated:
            found.append(Finding(page, line, f"{count} words: {sentence}"))
        for match in PRIVATE.finditer(sentence):
            found.append(Finding(page, line, f"private word {match[0]!r}: {sentence}"))
    return [*found, *proselint(page, numbered)]


def proselint(page: Path, numbered: list[tuple[int, str]]) -> Iterator[Finding]:
    """The findings of proselint, which reads one sentence per line."""
    text = "\n".join(sentence for _, sentence in numbered)
    for result in LintFile(page.name, text).lint(RULES):
        line, sentence = numbered[result.pos[0] - 1]
        yield Finding(page, line, f"proselint {result.check_result.check_path}: {sentence}")


def generated_lines(text: str) -> set[int]:
    """The lines from a comment `written by` or `cases` to the end, or to a comment `end of`."""
    found = set()
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("<!-- written by", "<!-- cases", "<!-- end of")):
            inside = not line.startswith("<!-- end of")
        if inside:
            found.add(number)
    return found


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence of a Markdown text with the line on which its paragraph starts."""
    for line, paragraph in paragraphs(text):
        flat = plain(paragraph)
        for sentence in re.split(r"(?<=[.!?])[)\"]*\s+(?=[A-Z(`\"\d]|[a-z]+[/_.])", flat):
            if re.search(r"\w", sentence):
                yield line, sentence.strip()


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items, headings and table cells, with their line numbers."""
    block: list[str] = []
    first = 0
    fenced = False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("```"):
            fenced = not fenced
        is_code = fenced or line.startswith("```") or (line.startswith("    ") and not block)
        is_start = bool(re.match(r"\s*(?:[-*] |\d+\. |#|\||<!--)", line))
        if block and (not line.strip() or is_code or is_start):
            yield first, " ".join(block)
            block = []
        if is_code or not line.strip() or line.startswith("<!--"):
            continue
        if line.startswith("|"):
            yield from ((number, part) for part in re.split(r"\||;", CODE.sub("`code`", line)))
            continue
        if not block:
            first = number
        block.append(re.sub(r"^\s*(?:[-*] |\d+\. |#+ )", "", line).strip())


def plain(paragraph: str) -> str:
    """The text without Markdown: code spans and links as one word each."""
    text = CODE.sub("`code`", paragraph)
    text = re.sub(r"`code`(?:,? (?:(?:and|or) )?`code`)+", "`code`", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text.replace("*", "")


def split_words(sentence: str) -> list[str]:
    joined = UNIT.sub("", sentence)
    return [word for word in joined.split() if re.search(r"\w", word)]


def main(arguments: list[str]) -> int:
    found = [
        finding
        for page in ([ROOT / name for name in arguments] or pages())
        for finding in findings(page)
    ]
    sys.stdout.write("".join(f"{finding}\n" for finding in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
