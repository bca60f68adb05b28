"""Invalid arguments are errors before a command connects to anything."""

import pytest
from typer.testing import CliRunner

from aimctl.app import app


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(
            ("explain", "thing/x", "-n", "team"),
            "with a kind that this control plane knows",
            id="unknown-kind",
        ),
        pytest.param(("timeline", "aimsvc/x"), "AIMService is namespaced", id="no-namespace"),
        pytest.param(
            ("timeline", "mc/x", "-n", "team", "--since", "soon"),
            "neither a time such as",
            id="no-time",
        ),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_error(args: tuple[str, ...], message: str) -> None:
    ran = CliRunner().invoke(app, args, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert ran.exit_code == 2, ran.output
    assert message in " ".join(ran.output.split())
