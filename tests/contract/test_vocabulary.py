"""Names use the words of Kubernetes, controller-runtime and NATS, and statements are simple.
docs/explanation/glossary.md has the terms.

1. No identifier contains one of `PRIVATE`: words that stood for terms of the field.
2. No value is named by one of `VAGUE`: words with two meanings, or none.
3. Wire names keep their words: `WIRE` names each, with the reason.
4. No conditional expression contains another one directly, and no tuple assignment of literals
   has more than two values or spans lines.
5. Log events have constant names in kebab-case.
6. The ids of test cases contain no private word either.
7. No function of the product or the lab is named by a bare participle, such as `kept` or `sorted`:
   it does not show whether the function does something or returns something.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = frozenset(
    re.split(
        r"\s+",
        "said says say tell tells telling told untold seen anew letter letters picture pictures"
        " nobody somebody anybody whoever foresaw foreseen unforeseen learned contested gone"
        " refused refusal refusals",
    )
)
VAGUE = frozenset(
    re.split(r"\s+", "words kept keeps wanted asked given there present look looks looked")
)
WIRE: dict[str, str] = {"CONTESTED": "the reason Contested of a Warning Event"}
PARTICIPLE = re.compile(
    r"_*([a-z]+ed|built|chosen|done|drawn|found|given|gone|heard|held|kept|known|left|lost|made"
    r"|meant|said|seen|sent|shown|taken|told|written)"
)
NO_PARTICIPLES = frozenset(
    {"embed", "exceed", "feed", "need", "proceed", "seed", "seaweed", "speed"}
)
NAMED_BY_PARTICIPLES = {
    "done": "the work queue's word in client-go",
    "owned": "the objects that another one owns, as in `state.owned(uid, kind, namespace)`",
    "changed": "a change in tests of planners",
    "rejected": "a rejection in tests of planners",
    "applied": "the object that a plan applies, in tests of planners",
}
DEFINITIONS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.arg,
    ast.alias,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
)
STATEMENTS = (ast.IfExp, ast.Assign, ast.Call)
LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FILES = sorted(
    str(path.relative_to(ROOT))
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".")
    for path in folder.rglob("*.py")
)
FOLDERS = sorted({str(Path(*Path(file).parts[:2])) for file in FILES})


@cache
def nodes(file: str) -> list[ast.AST]:
    """The nodes of a file that define names, log or may be dense."""
    return [
        node
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, DEFINITIONS + STATEMENTS)
        or (isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store))
    ]


def files_in(folder: str) -> list[str]:
    return [file for file in FILES if file == folder or file.startswith(f"{folder}/")]


def bound(node: ast.AST) -> Iterator[str]:
    """The names that a node defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.arg():
            yield node.arg
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.Attribute(ctx=ast.Store()):
            yield node.attr
        case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case _:
            pass


def is_private(name: str) -> bool:
    text = re.sub(r"(?i)dead[-_ ]?letters?", "", name)
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)
    return any(part.lower() in PRIVATE for part in parts) or name.strip("_").lower() in VAGUE


@pytest.mark.parametrize("folder", FOLDERS)
def test_identifiers_use_the_words_of_the_field(folder: str) -> None:
    found = {
        f"{file}: {name}"
        for file in files_in(folder)
        for node in nodes(file)
        for name in bound(node)
        if is_private(name) and name not in WIRE
    }
    assert not found, "\n".join(sorted(found))


def test_every_exception_is_in_use() -> None:
    names = {name for file in FILES for node in nodes(file) for name in bound(node)}
    assert WIRE.keys() <= names


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("said", True),
        ("_what_was_told", True),
        ("LastWordsSaid", True),
        ("letter", True),
        ("dead_letter", False),
        ("DeadLetters", False),
        ("words", True),
        ("short_words", False),
        ("given", True),
        ("test_the_given_namespace", False),
        ("essay", False),
    ],
)
def test_a_private_word_is_found_as_a_part_of_a_name(name: str, *, private: bool) -> None:
    assert is_private(name) is private


def is_nested(node: ast.AST) -> bool:
    return isinstance(node, ast.IfExp) and any(
        isinstance(part, ast.IfExp) for part in (node.test, node.body, node.orelse)
    )


def is_dense(node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=[ast.Tuple()], value=ast.Tuple(elts=values)):
            return len(values) > 2 or node.lineno != node.end_lineno
        case _:
            return False


@pytest.mark.parametrize("folder", FOLDERS)
def test_statements_are_simple(folder: str) -> None:
    found = [
        f"{file}:{node.lineno}"
        for file in files_in(folder)
        for node in nodes(file)
        if isinstance(node, ast.IfExp | ast.Assign) and (is_nested(node) or is_dense(node))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "nested", "dense"),
    [
        ("a if b else c if d else e", True, False),
        ("a if b else f(c if d else e)", False, False),
        ("a, b = c, d", False, False),
        ("a, b, c = 1, 2, 3", False, True),
        ("a, b = (\n1,\n2)", False, True),
        ("a, b, c = f()", False, False),
    ],
)
def test_what_is_nested_or_dense(text: str, *, nested: bool, dense: bool) -> None:
    parts = list(ast.walk(ast.parse(text)))
    assert (any(map(is_nested, parts)), any(map(is_dense, parts))) == (nested, dense)


def log_events(file: str) -> Iterator[ast.expr]:
    """The event of each call of a structlog logger."""
    for node in nodes(file):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    attr=method,
                    value=ast.Name(id="log" | "_log") | ast.Attribute(attr="log" | "_log"),
                ),
                args=[event, *_],
            ) if method in LOG_METHODS:
                yield from (event.body, event.orelse) if isinstance(event, ast.IfExp) else (event,)
            case _:
                pass


def test_log_events_have_constant_names() -> None:
    found = {
        f"{file}: {ast.unparse(event)}"
        for file in FILES
        for event in log_events(file)
        if not (
            isinstance(event, ast.Constant)
            and isinstance(event.value, str)
            and KEBAB.fullmatch(event.value)
        )
    }
    assert not found, "\n".join(sorted(found))
    assert sum(1 for file in FILES for _ in log_events(file)) > 30


def case_ids(file: str) -> Iterator[str]:
    """The constants in `id=` and `ids=` of parametrized tests."""
    for node in nodes(file):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in {"id", "ids"}:
                    yield from (
                        part.value
                        for part in ast.walk(keyword.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    )


def test_case_ids_use_the_words_of_the_field() -> None:
    tests = [file for file in FILES if Path(file).name.startswith("test_")]
    found = {f"{file}: {id_}" for file in tests for id_ in case_ids(file) if is_private(id_)}
    assert not found, "\n".join(sorted(found))
    assert sum(1 for file in tests for _ in case_ids(file)) > 1000


def has_participle(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A property may have one: it is the state of a thing."""
    decorators = {ast.unparse(each).rpartition(".")[2] for each in function.decorator_list}
    return (
        not decorators & {"property", "cached_property"}
        and PARTICIPLE.fullmatch(function.name) is not None
        and function.name.strip("_") not in NO_PARTICIPLES
    )


def functions_with_participles() -> Iterator[tuple[str, str]]:
    """Files and names."""
    for file in FILES:
        if "tests" not in Path(file).parts and not file.startswith("bench/"):
            for node in nodes(file):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and has_participle(
                    node
                ):
                    yield file, node.name


def test_functions_are_named_by_verbs_or_nouns() -> None:
    found = [
        f"{file}: {name}"
        for file, name in functions_with_participles()
        if name not in NAMED_BY_PARTICIPLES
    ]
    assert not found, "\n".join(found)
    assert NAMED_BY_PARTICIPLES.keys() == {name for _, name in functions_with_participles()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def kept(): ...", True),
        ("async def _stored(): ...", True),
        ("@property\ndef connected(self): ...", False),
        ("def _seed(): ...", False),
        ("def stored_keys(): ...", False),
        ("def add_checked(): ...", False),
    ],
)
def test_what_is_a_bare_participle(text: str, *, found: bool) -> None:
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    assert has_participle(function) is found
