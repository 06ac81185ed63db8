"""The command `genamp`: reads arguments, calls the library, prints. Nothing is computed here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from genamp_lib import __version__
from genamp_lib._project import GenampError, missing_module
from genamp_lib.cli import book, data, estimate
from genamp_lib.cli import diagnose as diagnose_command

app = typer.Typer(
    help=(
        "Rerun the chapters of the book with your own parameters, build its site, see every number "
        "of the papers beside ours, and ask the same of your own generator."
    ),
    epilog="Start with: genamp chapters",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"genamp {__version__}")
        raise typer.Exit()


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


for command in (book.chapters, book.run, book.build, book.serve, book.scoreboard):
    app.command()(command)
app.command(
    help=diagnose_command.BREAK.join(diagnose_command.HELP),
    epilog=diagnose_command.BREAK.join(diagnose_command.EXAMPLES),
)(diagnose_command.diagnose)
app.add_typer(data.app, name="data")
app.add_typer(estimate.app, name="estimate")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; user errors are one line on stderr and exit code 2, failed runs 1."""
    try:
        app(join_pairs(sys.argv[1:] if arguments is None else arguments))
    except (GenampError, ModuleNotFoundError) as error:
        shown = missing_module(error) if isinstance(error, ModuleNotFoundError) else error
        if shown is None:
            raise
        print(f"error: {shown}", file=sys.stderr)
        sys.exit(shown.exit_code)


def join_pairs(arguments: list[str]) -> list[str]:
    """Write `-p KEY VALUE` as `-p KEY=VALUE`, the one form that the parser below knows."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in ("-p", "--parameter") and rest:
            pair = rest.pop(0)
            if "=" not in pair and rest:
                pair = f"{pair}={rest.pop(0)}"
            joined.append(pair)
    return joined
