"""What the stand-in knows of a model, read from its files: its vocabulary and how many
parameters it has."""

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

UNKNOWN = "[UNK]"
LONGEST_WORD = 100


def read_vocabulary(path: Path) -> dict[str, int]:
    """Token to number from a BERT `vocab.txt`: one token a line."""
    return {
        token: number for number, token in enumerate(path.read_text(encoding="utf-8").splitlines())
    }


def tokenize(text: str, vocabulary: Mapping[str, int]) -> list[str]:
    """WordPiece (Devlin et al. 2018): lower case without accents, words and punctuation apart,
    then greedily the longest known pieces."""
    return [piece for word in _split_words(text) for piece in _pieces(word, vocabulary)]


def _split_words(text: str) -> Iterator[str]:
    word = ""
    for char in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(char)
        if kind == "Mn":
            continue
        if char.isspace() or kind.startswith(("P", "S", "C")):
            if word:
                yield word
            if not char.isspace() and not kind.startswith("C"):
                yield char
            word = ""
        else:
            word += char
    if word:
        yield word


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[str]:
    if len(word) > LONGEST_WORD:
        return [UNKNOWN]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        piece = next(
            (prefix + word[start:end] for end in ends if prefix + word[start:end] in vocabulary),
            None,
        )
        if piece is None:
            return [UNKNOWN]
        pieces.append(piece)
        start += len(piece) - len(prefix)
    return pieces


def parameters_of(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header: 8 bytes of little-endian
    length, then JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(
        math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
    )
