"""Results for programs: `-o json` and `-o yaml`, of every command that reports something."""

import json
from typing import Any

from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text


def print_data(console: PlainConsole, data: Any, form: Form) -> None:
    """A document, in ASCII: foreign text cannot inject control sequences into a terminal."""
    if form == "json":
        console.print_json(json.dumps(data), ensure_ascii=True)
    else:
        print_line(console, data, form)


def print_line(console: PlainConsole, data: Any, form: Form) -> None:
    """One of several documents: a line of JSON, or YAML behind `---`."""
    if form == "json":
        print_text(console, json.dumps(data))
    else:
        import yaml

        for line in yaml.safe_dump(
            data, sort_keys=False, explicit_start=True, width=10**6
        ).splitlines():
            print_text(console, line)
