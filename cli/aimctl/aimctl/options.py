"""The arguments and options that several commands have. Imports nothing that only a running command
needs: the shell waits for it at every TAB."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aimctl.completion import complete_name, complete_namespace

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace of the object.", autocompletion=complete_namespace
    ),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="KIND/NAME",
        help="For example AIMService/chat, aimsvc/chat or mc/weights.",
        autocompletion=complete_name,
    ),
]
NamedOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="KIND/NAME",
        help="For example aimsvc/chat. Default: all objects of the namespace.",
        autocompletion=complete_name,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Only show entries newer than this: 90s, 15m, 2h, 3d, or 2030-01-02T03:04:05Z.",
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        help="Path of the kubeconfig. Default: same lookup as kubectl.",
        exists=True,
        dir_okay=False,
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="State directory. Default: a temporary one, removed on exit.",
    ),
]
Form = Literal["text", "json", "yaml"]
Output = Annotated[Form, typer.Option("--output", "-o", help="Output format.")]
