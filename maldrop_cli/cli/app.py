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
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
COMMANDS = {command.__name__: command for command in (train, compare, sweep, timeit, report)}
EXAMPLES = {  # the last lines of --help
    "train": ("train --dataset mnist --rho 512 --epochs 5 --save net.pt", "train --resume net.pt --epochs 10"),
    "compare": ("compare --seeds 5 --csv arms.csv", "compare --dataset cifar10 --selector heuristic,joint --dry-run"),
    "sweep": (
        "sweep --schedule forward-smooth --rho 0..4096 --plot rho.svg",
        "sweep --lr 0.001,0.01 --rho 5% --seeds 3",
    ),
    "timeit": ("timeit --naive", "timeit --selector heuristic,joint --json times.json"),
    "report": (
        "report maldrop-runs --by rho --baseline none",
        "report maldrop-runs --where rho=0..1024 --plot rho.svg",
    ),
}
for name, command in COMMANDS.items():
    lines = [f"maldrop {line}" for line in EXAMPLES[name]]
    app.command(epilog="\n\n".join(["Examples:", *lines]))(command)


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
