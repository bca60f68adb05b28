"""Pages are in plain English: short sentences, no private word or empty phrase (tools/prose.py)."""

from pathlib import Path

import pytest

from tools.prose import MAX_WORDS, ROOT, findings, pages, sentences, split_words


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_plain_english(page: Path) -> None:
    assert [str(finding) for finding in findings(page)] == []


TEXT = """# Title

First sentence. The second has `code with blanks` and [a link](x.md).
It goes on (like this). lib/x.py is a path.

    code that. is not. checked

- an item
  in two lines
- another

| cell one | cell two; its `a|b;c` part |
|---|---|
"""


def test_sentences_are_split_at_full_stops_items_and_cells() -> None:
    assert [sentence for _, sentence in sentences(TEXT)] == [
        "Title",
        "First sentence.",
        "The second has `code` and a link.",
        "It goes on (like this).",
        "lib/x.py is a path.",
        "an item in two lines",
        "another",
        "cell one",
        "cell two",
        "its `code` part",
    ]


def test_a_code_span_and_a_quantity_are_one_word_each() -> None:
    assert len(split_words("It takes 15 s and `code`, or 8 GB – more")) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word " * MAX_WORDS, []),
        ("word " * (MAX_WORDS + 1), [f"{MAX_WORDS + 1} words"]),
        ("The user is told so.", ["private word 'told'"]),
        ("Dead letters are kept; `told` is code.", []),
        ("The letters are kept.", ["private word 'letters'"]),
        ("One.\n\nThe very large file.", ["proselint weasel_words.very"]),
        ("<!-- written by make x -->\n| " + "word " * 99 + "|", []),
        ("<!-- written by make x -->\n| told |", ["private word 'told'"]),
        ("<!-- cases -->\n<!-- end of cases -->\n" + "word " * 99, ["99 words"]),
    ],
)
def test_findings_name_long_sentences_and_private_words(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert [finding.text.partition(":")[0] for finding in findings(page)] == expected
