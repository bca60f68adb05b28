"""Each program has the settings that its component reads."""

import typing

import pytest

from aim_control_plane.__main__ import PROGRAMS
from aimcontroller.process import Program


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.component)
def test_a_program_gets_the_settings_that_it_reads(program: Program) -> None:
    assert typing.get_type_hints(program.main)["settings"] is program.settings_type
