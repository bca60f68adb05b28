"""Settings of the cacher: the bundle of certificates."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from aim_cacher.settings import CacherSettings
from aimlab.certificates import make_certificate


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Key and certificate of a CA."""
    pair = make_certificate(tmp_path_factory.mktemp("ca"), "ca")
    return pair.key.read_text() + pair.certificate.read_text()


def test_without_a_bundle_no_certificates_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_CA_BUNDLE", "")
    assert CacherSettings().ca_text() == ""


def test_certificates_are_handed_on_and_nothing_else_of_the_file(pem: str, tmp_path: Path) -> None:
    file = tmp_path / "bundle.pem"
    file.write_text(f"# Zertifikat für alle\n{pem}{pem}")
    text = CacherSettings(ca_bundle=str(file)).ca_text()
    certificates = pem[pem.index("-----BEGIN CERTIFICATE") :]
    assert text.startswith(certificates + certificates)
    assert "PRIVATE KEY" not in text
    assert "Zertifikat" not in text


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----",
    ],
    ids=["missing", "empty", "broken", "a-key"],
)
def test_a_file_without_certificates_ends_the_start(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("AIM_CA_BUNDLE", str(file))
    with pytest.raises(ValidationError, match="no certificates in PEM form") as caught:
        CacherSettings()
    assert caught.value.errors()[0]["loc"] == ("ca_bundle",)
