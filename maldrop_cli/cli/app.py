"""The Typer app. Imports neither torch nor pandas: each command imports what it needs when it is called."""

from typing import Annotated

import typer

from maldrop_cli import __version__
from maldrop_cli.cli.compare import compare
from maldrop_cli.cli.report import report
from maldrop_cli.cli.sweep import sweep
from maldrop_cli.cli.timeit import timeit
from maldrop_cli.cli.train import train

app = typer.Typer(
    name="maldrop",
    help="Benchmark Malicious Dropout: drop the neurons that help the right answer most.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
COMMANDS = {command.__name__: command for command in (train, compare, sweep, timeit, report)}
for command in COMMANDS.values():
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maldrop {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
