"""Generated files are up to date with their sources: `make generate` changes nothing."""

import json
from pathlib import Path

import pytest
import yaml

from aimschema.crds import crd
from aimschema.kinds import KINDS
from tools import crds, message_schemas

ROOT = Path(__file__).parents[2]
DEPLOYED = ROOT / "deploy" / "crds"
REPORT = "aim.status.reported.v1"


def test_the_crds_are_up_to_date(tmp_path: Path) -> None:
    """If this fails, run `make crds`."""
    crds.main(tmp_path)
    generated = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {file.name: file.read_text() for file in DEPLOYED.iterdir()} == generated


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_crd_file_reads_back_as_the_crd(kind: type) -> None:
    assert yaml.safe_load(crds.render(crd(kind))) == crd(kind)


def test_a_removed_field_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "released").mkdir()
    assert message_schemas.main([str(tmp_path)]) == 0
    message_schemas.release(tmp_path, "0.7")
    path = tmp_path / f"{REPORT}.schema.json"
    schema = json.loads(path.read_text())
    del schema["$defs"]["ReportedCondition"]["properties"]["message"]
    path.write_text(json.dumps(schema))
    capsys.readouterr()
    assert message_schemas.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().out == (
        "incompatible with 0.7: FIELD_REMOVED: aim.status.reported.v1 field conditions[].message:"
        " older readers would treat it as absent; keep it\n"
    )


def test_a_version_is_released_once(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    message_schemas.main([str(tmp_path)])
    assert message_schemas.main(["--release", "0.7", str(tmp_path)]) == 0
    with pytest.raises(FileExistsError):
        message_schemas.release(tmp_path, "0.7")


def test_wrong_arguments_print_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_schemas.main([]) == 2
    assert "usage: python -m tools.message_schemas" in capsys.readouterr().err
