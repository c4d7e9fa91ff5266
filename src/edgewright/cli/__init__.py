"""The command line: parse, call, print. No logic of its own.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a gate failed or is undecided, 2 could not run.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading

import click

from edgewright.cli.common import GlobalOptions, ReaderGoneError, fail, global_options
from edgewright.errors import EdgewrightError

#: Commands in the order of the work; each is the object `command` of the module of that name.
COMMANDS = (
    "demo",
    "deploy",
    "inspect",
    "compress",
    "convert",
    "verify",
    "locate",
    "bench",
    "report",
    "run",
    "serve",
    "spec",
    "list",
    "doctor",
    "completion",
)


class _Commands(click.Group):
    """Commands whose modules are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgewright.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            tail = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{tail}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.version_option(package_name="edgewright", message="edgewright %(version)s")
@global_options
@click.pass_context
def group(context: click.Context, /, **values: object) -> None:
    """A trained network in, the fastest deployment that is proven to give the same answers out.

    \b
    edgewright demo                                            # see it work, about four minutes
    edgewright deploy model.onnx --samples photos/             # the whole way
    edgewright deploy model.onnx --samples photos/ --dry-run   # what it would do
    """
    context.obj = GlobalOptions.of(values)


def main() -> None:
    """Run the command line and exit."""
    as_json = "--json" in sys.argv[1:]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        code = group.main(prog_name="edgewright", standalone_mode=False)
    except EdgewrightError as error:
        code = fail(error, as_json)
    except click.exceptions.Abort:
        goes_on = bool({"deploy", "demo"}.intersection(sys.argv[1:]))
        click.echo("stopped" + ("; the same command goes on where it was" if goes_on else ""), err=True)
        code = 130
    except click.ClickException as mistake:
        if as_json:
            fail(EdgewrightError("E103", mistake.format_message(), hint="edgewright --help"), as_json)
        else:
            mistake.show()
        code = mistake.exit_code
    except ReaderGoneError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit flush stays silent
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: object) -> None:
    """SIGTERM ends the process the way Ctrl-C does: staging folders are removed and workers stopped."""
    sys.exit(128 + number)
