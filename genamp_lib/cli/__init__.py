"""The command `genamp`: reads arguments, calls the library, prints. Nothing is computed here."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
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


for command in (
    *(book.chapters, book.run, book.sweep),
    *(book.build, book.serve, book.lab, book.export, book.scoreboard),
):
    app.command()(command)
app.add_typer(book.runs, name="runs")
app.command(
    help=diagnose_command.BREAK.join(diagnose_command.HELP),
    epilog=diagnose_command.BREAK.join(diagnose_command.EXAMPLES),
)(diagnose_command.diagnose)
app.command(
    help=diagnose_command.BREAK.join(diagnose_command.COMPARE_HELP),
    epilog=diagnose_command.BREAK.join(diagnose_command.COMPARE_EXAMPLES),
)(diagnose_command.compare)
app.add_typer(data.app, name="data")
app.add_typer(estimate.app, name="estimate")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; user errors are one line on stderr and exit code 2, failed runs 1."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # of a test's stream
            stream.reconfigure(errors="backslashreplace")  # where a terminal lacks a letter
    try:
        app(join_pairs(sys.argv[1:] if arguments is None else arguments))
    except GenampError as error:
        _end(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_module(error)
        if missing is None:
            raise
        _end(str(missing), missing.exit_code)
    except OSError as error:  # a full disk, a read-only folder, a file where a folder should be
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}; free or mend it, or work in another folder", 2)
    except RuntimeError as error:
        if "Symlink loop" not in str(error):
            raise
        _end(f"{error}; remove the link", 2)


def _end(problem: str, exit_code: int) -> None:
    with suppress(OSError):  # where stderr is what cannot be written
        print(f"error: {problem}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # what is left cannot be written either: Python must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exit_code)


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
