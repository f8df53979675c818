"""The commands, and how errors end."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext

import typer

from stpredict import __version__
from stpredict._log import hidden_bars
from stpredict.cli._doctor import doctor
from stpredict.cli._evaluate import evaluate
from stpredict.cli._predict import predict
from stpredict.cli._report import report
from stpredict.cli._train import train

app = typer.Typer(
    help="Spatial gene expression from H&E histology.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
for command in (predict, train, evaluate, report, doctor):
    app.command(command.name, epilog=command.examples)(command.function)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors end with one line and exit code 1."""
    # files and pipes on Windows have no µ in some languages
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # the lines of a bar that overwrite each other would fill a log file
    bars = nullcontext() if sys.stderr.isatty() else hidden_bars()
    try:
        with bars:
            app()
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        # the text of a KeyError is in quotes
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"stpredict: error: {message}", file=sys.stderr)
        sys.exit(1)
