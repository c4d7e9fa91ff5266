"""The command line: parse, call, print. No logic of its own.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a gate failed or is undecided, 2 could not run.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from edgewright.cli.common import GlobalOptions, fail, global_options
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
    edgewright demo                                            # see it work, about two minutes
    edgewright deploy model.onnx --samples photos/             # the whole way
    edgewright deploy model.onnx --samples photos/ --dry-run   # what it would do
    """
    context.obj = GlobalOptions.of(values)


def main() -> None:
    """Run the command line and exit."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = group.main(prog_name="edgewright", standalone_mode=False)
    except EdgewrightError as error:
        code = fail(error, as_json)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit flush stays silent
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
