"""What every command shares: global options, `--set`, output for people and machines, progress bars."""

from __future__ import annotations

import difflib
import functools
import json
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.short_options import expand
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.model import Model
    from edgewright.samples import Samples

_GLOBAL_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Only results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option(
        "--set", "sets", multiple=True, metavar="PLUGIN.KEY=VALUE", help="Set an option of a plugin. Repeatable."
    ),
    click.option("--threads", type=click.IntRange(1), default=None, help="Threads a runtime may use.  [default: 1]"),
)


class ReaderGoneError(Exception):
    """Whoever read stdout went away (`edgewright list | head -1`), which is no error of ours."""


@dataclass(frozen=True)
class GlobalOptions:
    """Options that every command takes, before or after its name."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False
    sets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    threads: int = 1

    @classmethod
    def of(cls, values: Mapping[str, Any], outer: GlobalOptions | None = None) -> GlobalOptions:
        """The options in `values`, on top of those given before the command's name."""
        outer = outer or cls()
        return replace(
            outer,
            as_json=values["as_json"] or outer.as_json,
            quiet=values["quiet"] or outer.quiet,
            verbose=values["verbose"] or outer.verbose,
            dry_run=values["dry_run"] or outer.dry_run,
            sets=_parse_sets(values["sets"], outer.sets),
            threads=values["threads"] or outer.threads,
        )


def global_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the global options to a command; they arrive as keyword arguments."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_GLOBAL_OPTIONS), function)


class Command(click.Command):
    """A command that also takes plugin options by their short names: `--weights FILE` for `--set darknet.weights=FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn short names into `--set` before click looks at them."""
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        expanded = expand(args, known | {"--help"})
        self._refuse_repeated(ctx, expanded)
        return super().parse_args(ctx, expanded)

    def _refuse_repeated(self, ctx: click.Context, args: list[str]) -> None:
        """click keeps the last of several values without a word: `--runtime a --runtime b` would try b alone."""
        given = Counter(self.make_parser(ctx).parse_args(list(args))[2])
        for option, times in given.items():
            if times == 1 or not isinstance(option, click.Option) or option.multiple or option.is_flag or option.count:
                continue
            listed = f"; several are one list: {option.metavar}" if "," in (option.metavar or "") else ""
            raise click.UsageError(f"`{option.opts[0]}` is given {times} times, but takes one value{listed}", ctx)


def edgewright_command(**settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function `f(terminal, **arguments)`; the function's docstring is the help text."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        names = {"as_json", "quiet", "verbose", "dry_run", "sets", "threads"}

        @functools.wraps(function)
        def call(**values: Any) -> Any:
            outer = click.get_current_context().obj
            options = GlobalOptions.of({name: values.pop(name) for name in names}, outer)
            _check_plugins(options.sets)
            terminal = Terminal(options)
            with terminal.shown_warnings():
                try:
                    return function(terminal, **values)
                except EdgewrightError as error:
                    raise _pasteable(error, values) from error

        made: click.Command = click.command(**{"cls": Command, **settings})(global_options(call))
        shared = len(_GLOBAL_OPTIONS)
        made.params = [*made.params[shared:], *made.params[:shared]]  # a command's own options come first in its help
        return made

    return decorate


class Terminal:
    """Where a command's output goes: tables for people or one JSON document for machines, with the same data."""

    def __init__(self, options: GlobalOptions) -> None:
        self.options = options

    @functools.cached_property
    def console(self) -> Console:
        """Data for people: stdout."""
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        console.on_broken_pipe = _closed_pipe  # type: ignore[method-assign]
        return console

    @functools.cached_property
    def errors(self) -> Console:
        """Everything that is not data: stderr."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def emit(self, document: Any, render: Callable[[Console], None]) -> None:
        """Print a result: `document` with --json, else what `render` prints."""
        if self.options.as_json:
            plain = document.to_json() if hasattr(document, "to_json") else document
            try:
                click.echo(json.dumps(plain, indent=1, default=str, ensure_ascii=False))
            except BrokenPipeError:
                raise ReaderGoneError from None
        else:
            render(self.console)

    def say(self, message: str) -> None:
        """One line on stderr, unless --quiet."""
        if not self.options.quiet:
            self.errors.print(message, markup=False)

    def next(self, line: str) -> None:
        """The last line a person reads: the exact next command."""
        if not self.options.quiet and not self.options.as_json:
            self.errors.print(f"\nnext: {line}", markup=False)

    def gate(self, error: EdgewrightError) -> int:
        """Say on stderr that a gate failed or is undecided, after its result was printed; the exit code."""
        click.echo(f"\n{error}", err=True)
        return error.exit_code

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress bars on a terminal; lines elsewhere with --verbose; silence with --quiet or --json."""
        if self.options.quiet:
            yield SILENT
        elif self.errors.is_terminal:
            from edgewright.cli.bars import Bars

            with Bars(self.errors) as bars:
                yield bars
        else:
            yield _Lines(self)

    @contextmanager
    def shown_warnings(self) -> Iterator[None]:
        """Print edgewright's own warnings as one line each."""

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if issubclass(category, EdgewrightWarning):
                self.errors.print(f"warning: {message}", markup=False)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", EdgewrightWarning)
            warnings.showwarning = show
            yield


class _Lines:
    """Progress where no terminal is attached: the notes, and with --verbose each task's name once."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._last = ""

    def update(self, task: str, done: int, total: int | None) -> None:
        """Name a task when it begins."""
        if task != self._last and self._terminal.options.verbose:
            self._terminal.say(task)
        self._last = task

    def note(self, message: str) -> None:
        """Print the note."""
        if self._terminal.options.verbose or not self._terminal.options.as_json:
            self._terminal.say(message)


def load_network(terminal: Terminal, source: str, spec: str | None) -> Model:
    """The Model that a command's first argument names."""
    from edgewright.load import load, plugin_of

    return load(source, spec=spec, options=terminal.options.sets.get(plugin_of(source), {}))


def network_words(terminal: Terminal, source: str) -> tuple[str, ...]:
    """How a later command names the same network: `source`, and what was set for its importer."""
    from edgewright.load import plugin_of

    plugin = plugin_of(source)
    values = terminal.options.sets.get(plugin, {})
    return source, *(word for key, value in values.items() for word in ("--set", f"{plugin}.{key}={value}"))


def open_samples(terminal: Terminal, path: str | None, network: Any, *, notes: bool = True, **options: Any) -> Samples:
    """The samples that `--samples` names; `notes` says how they were understood.

    Raises:
        EdgewrightError: E301 when none were given.
    """
    from edgewright.samples import Samples

    if path is None:
        raise EdgewrightError(
            "E301", "no samples were given", hint="add --samples FOLDER (of photos; or a labels.csv, or .npz)"
        )
    with terminal.progress() as progress:
        samples = Samples.open(path, network, progress=progress if notes else SILENT, **options)
    for name, reason in samples.skipped[:5]:
        terminal.say(f"warning: `{name}` was left out: {reason}")
    if len(samples.skipped) > 5:
        terminal.say(f"warning: {len(samples.skipped) - 5} more were left out; --json lists them")
    return samples


def _closed_pipe() -> None:
    """Let `main` handle a reader that went away; rich by itself would exit with the code of a failed gate."""
    raise ReaderGoneError


def is_bundle(path: str) -> bool:
    """True where `path` is a bundle's folder."""
    return (Path(path) / "bundle.json").is_file()


def quoted(*texts: object) -> str:
    """`texts` as the words of a command line that can be pasted into a shell."""
    return shlex.join(str(text) for text in texts)


def example_of(samples: Samples) -> str:
    """Path of a sample that judged, to show in a command."""
    judges = samples.role("judge")
    return str(judges.raw(judges.ids[0])) if len(judges) else "PHOTO"


def _pasteable(error: EdgewrightError, values: Mapping[str, Any]) -> EdgewrightError:
    """The error with MODEL and BUNDLE in its hint replaced by what the command was given."""
    model = values.get("model") or values.get("network")
    words = {"MODEL": model, "BUNDLE": values.get("bundle") or (model if model and is_bundle(model) else None)}
    hint = error.hint
    for word, value in words.items():
        if hint and value and not (word == "MODEL" and is_bundle(value)):
            hint = re.sub(rf"\b{word}\b", lambda _, value=value: quoted(value), hint)  # type: ignore[misc]
    return EdgewrightError(error.code, error.message, details=error.details, hint=hint)


def _check_plugins(sets: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse `--set` for a plugin that does not exist: an option that goes nowhere is a mistake."""
    if not sets:
        return
    from edgewright import registry

    known = [name for kind in ("importers", "zoo", "passes", "runtimes", "tasks") for name in registry.names(kind)]
    for plugin, values in sets.items():
        if plugin not in known:
            near = difflib.get_close_matches(plugin, known, 1)
            tail = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(sorted(known))}"
            option = f"--set {plugin}.{next(iter(values))}"
            raise EdgewrightError("E101", f"`{option}` names no plugin{tail}", hint="edgewright list")


def fail(error: EdgewrightError, as_json: bool) -> int:
    """Print an error the way --json or a person expects it; its exit code."""
    if as_json:
        click.echo(json.dumps({"error": error.to_json()}, indent=1, ensure_ascii=False))
    click.echo(str(error), err=True)
    return error.exit_code


def _parse_sets(texts: tuple[str, ...], outer: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    sets = {plugin: dict(values) for plugin, values in outer.items()}
    for text in texts:
        target, equals, value = text.partition("=")
        plugin, dot, key = target.rpartition(".")
        if not equals or not dot or not plugin or not key:
            raise EdgewrightError(
                "E103", f"`--set {text}` must look like PLUGIN.KEY=VALUE", hint="edgewright list passes"
            )
        sets.setdefault(plugin, {})[key.replace("-", "_")] = value
    return sets
