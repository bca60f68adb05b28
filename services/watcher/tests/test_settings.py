"""The namespaces that the watcher watches."""

import pytest

from aim_watcher.settings import WatcherSettings


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        pytest.param("", (), id="all"),
        pytest.param(" , ", (), id="nothing-between-commas"),
        pytest.param("team-a", ("team-a", "aim-system"), id="one"),
        pytest.param("team-a, team-b,team-a,", ("team-a", "team-b", "aim-system"), id="several"),
        pytest.param("aim-system", ("aim-system",), id="its-own"),
    ],
)
def test_the_named_namespaces_and_its_own_are_watched(
    monkeypatch: pytest.MonkeyPatch, text: str, scope: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AIM_NAMESPACES", text)
    assert WatcherSettings().scope == scope


@pytest.mark.parametrize("text", ["Team", "a b", "a/b", "*", "-a", "a" * 64, "a,..,b"])
def test_an_invalid_name_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("AIM_NAMESPACES", text)
    with pytest.raises(ValueError, match="no name of a namespace"):
        WatcherSettings()
