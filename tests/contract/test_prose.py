"""Pages use the words of Kubernetes: none of them uses a private word of this project.

`PENDING` names the pages that still do. Take a page out of it once it is rewritten.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = re.compile(
    r"\b(anew|nobody|somebody|whoever|foresaw|foreseen|put right|puts right|ever more rarely"
    r"|at work|stands by|look again|fought with|told)\b",
    re.IGNORECASE,
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/*/README.md")])
PENDING: frozenset[str] = frozenset(
    {
        "CHANGELOG.md",
        "docs/adr/0017-hugging-face-hub-for-the-lab.md",
        "docs/adr/0020-replay-recorded-services.md",
        "docs/adr/0027-helm-chart-as-source-of-kustomize.md",
        "docs/how-to/nats.md",
        "docs/reference/aimctl.md",
        "docs/reference/api.md",
        "docs/reference/faults.md",
        "docs/reference/metrics.md",
        "docs/reference/permissions.md",
        "docs/reference/sources.md",
        "lab/aimlab/README.md",
        "libs/aimbus/README.md",
        "libs/aimcontroller/README.md",
        "tests/chaos/README.md",
    }
)


def private_words(page: Path) -> list[str]:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|^    .*$", "", page.read_text(), flags=re.MULTILINE)
    return [match[0] for match in PRIVATE.finditer(prose)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_no_private_word(page: Path) -> None:
    if str(page.relative_to(ROOT)) not in PENDING:
        assert private_words(page) == []
