"""Paths of a container become paths on this machine."""

from pathlib import Path

import pytest

from aimlab.node.paths import lay_out, rewrite, under

ROOT = Path("/pod/root")
MOUNTS = ["/cache", "/workspace/model-cache/org/model", "/run/shared"]


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        pytest.param("/cache", "/pod/root/cache", id="a-mount"),
        pytest.param("/cache/", "/pod/root/cache", id="a-mount-with-slash"),
        pytest.param("/cache/a/b", "/pod/root/cache/a/b", id="under-a-mount"),
        pytest.param(
            "/workspace/model-cache", "/pod/root/workspace/model-cache", id="above-a-mount"
        ),
        pytest.param("--data=/cache/x", "--data=/pod/root/cache/x", id="an-option"),
        pytest.param("/cache2", "/cache2", id="only-the-same-beginning"),
        pytest.param("/etc/hosts", "/etc/hosts", id="elsewhere"),
        pytest.param("/", "/", id="the-root-alone"),
        pytest.param("cache", "cache", id="relative"),
        pytest.param("s3://cache", "s3://cache", id="a-uri"),
        pytest.param("/cache/../etc", "/cache/../etc", id="out-of-the-mount"),
        pytest.param('{"path": "/cache"}', '{"path": "/cache"}', id="json"),
        pytest.param("A=/cache", "A=/cache", id="no-option"),
    ],
)
def test_a_path_that_touches_a_mount_moves_under_the_root(text: str, becomes: str) -> None:
    assert rewrite(text, MOUNTS, ROOT) == becomes


@pytest.mark.parametrize("path", ["/../../etc", "../etc", "/a/../../../etc"])
def test_no_path_leads_out_of_the_root(path: str) -> None:
    assert under(ROOT, path) == "/pod/root/etc"


def test_mounts_are_links_and_may_be_nested(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "file").write_text("x")
    root = tmp_path / "root"
    for _ in range(2):
        lay_out(root, {"/data/in/side": inner, "/data": outer})
    assert (root / "data/in/side/file").read_text() == "x"
