"""A repository: the models that are served, loaded from folders and reloaded when these change.

A reload opens the new bundle beside the old one, warms it up, and only then lets requests go there; what the old one has
accepted, it finishes. A bundle that cannot be opened changes nothing: half-copied ones fail their manifest's hashes and
are tried again once their files have changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewright.bundle import EVIDENCE
from edgewright.errors import EdgewrightError
from edgewright.serve.core.copies import Copies
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.opening import open_place
from edgewright.serve.core.options import ModelOptions, chosen_versions, read_options
from edgewright.serve.core.places import Place, Stamp, find_places, stamp
from edgewright.serve.core.version import Version

#: Seconds that an old version may take to finish what it has accepted.
_RETIRING_S = 60.0
Key = tuple[str, int]  # name (with a variant) and version


@dataclass(frozen=True)
class Entry:
    """One line of the repository index: a version of a model, its state, and the reason where it is not served."""

    name: str
    version: int
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


@dataclass
class _Known:
    """What was last seen of a bundle's folder."""

    stamp: Stamp
    problem: str = ""


class Repository:
    """Bundles of several folders, by name and version. Looking one up takes no lock."""

    def __init__(
        self,
        folders: Sequence[Path],
        options: ModelOptions,
        *,
        private_copies: bool = False,
        allow_hooks: bool = False,
        log: Log = silent,
    ) -> None:
        self._folders = tuple(folders)
        self._options = options
        self._copies = Copies() if private_copies else None
        self._allow_hooks = allow_hooks
        self._log = log
        self._lock = threading.Lock()  # one change at a time
        self._versions: dict[Key, Version] = {}
        self._known: dict[Key, _Known] = {}
        self._table: Mapping[tuple[str, int | None], Version] = {}
        self._index: tuple[Entry, ...] = ()
        self._unloaded: set[str] = set()
        self._retiring: list[threading.Thread] = []

    def get(self, name: str, version: int | None = None) -> Version:
        """The version asked for, or the newest.

        Raises:
            RefusalError: "unknown".
        """
        found = self._table.get((name, version))
        if found is None:
            known = any(key[0] == name for key in self._table)
            what = f"version {version} of model `{name}`" if known else f"model `{name}`"
            raise RefusalError("unknown", f"{what} is not served here")
        return found

    def versions(self, name: str | None = None) -> list[Version]:
        """What is served (under the one name), by name and version; each once."""
        table = self._table
        chosen = [version for (key, number), version in table.items() if number is not None and name in (None, key)]
        return sorted(dict.fromkeys(chosen), key=lambda version: (version.name, version.number))

    def index(self) -> tuple[Entry, ...]:
        """Every bundle that was seen, with its state and what is wrong with its files; takes no lock."""
        return self._index

    def refresh(self, only: str | None = None) -> list[EdgewrightError]:
        """Bring what is served in line with the folders: load what is new or changed, retire what is gone.

        Args:
            only: A model's name; others stay as they are.

        Returns:
            What went wrong. A folder that cannot be read leaves everything from it as it is.
        """
        with self._lock:
            places, problems = self._places()
            wanted = {(place.name, place.version): (place, options) for place, options in places}
            for key, (place, options) in wanted.items():
                if only in (None, place.model, place.name) and place.model not in self._unloaded:
                    problem = self._bring(key, place, options)
                    problems += [problem] if problem else []
            if not any(problem.code in ("E104", "E103") for problem in problems):
                for key in [key for key in self._known if key not in wanted]:
                    self._known.pop(key)
                    self._retire(self._versions.pop(key, None), "removed")
            self._publish()
            return problems

    def load(self, name: str) -> None:
        """Load a model that was unloaded, or look at its files again.

        Raises:
            EdgewrightError: It cannot be opened. What served before still does.
            RefusalError: "unknown" where no folder holds it.
        """
        model = name.partition("@")[0]
        with self._lock:
            self._unloaded.discard(model)
            for key in [key for key in self._known if key[0].partition("@")[0] == model]:
                if self._known[key].problem:
                    self._known.pop(key)  # asked for by name: tried again even though its files are the same
        problems = self.refresh(name)
        if problems:
            raise problems[0]
        self.get(name)

    def unload(self, name: str) -> None:
        """Stop serving a model, all its versions and variants, until it is loaded again.

        Raises:
            RefusalError: "unknown".
        """
        model = name.partition("@")[0]
        with self._lock:
            keys = [key for key in self._versions if key[0].partition("@")[0] == model]
            if not keys:
                raise RefusalError("unknown", f"model `{name}` is not served here")
            self._unloaded.add(model)
            gone = [self._versions.pop(key) for key in keys]
            for key in keys:
                self._known[key] = _Known((), "unloaded")
            self._publish()
            for version in gone:
                self._retire(version, "unloaded")

    def stop(self, timeout_s: float) -> bool:
        """Finish what was accepted and free everything; False where that took longer."""
        until = time.monotonic() + timeout_s
        with self._lock:
            versions = list(self._versions.values())
            for version in versions:
                version.close()
            done = [_stop(version, max(0.0, until - time.monotonic())) for version in versions]
            for thread in self._retiring:
                thread.join(max(0.0, until - time.monotonic()))
            if self._copies:
                self._copies.close()
            self._versions.clear()  # lookups go on finding them: their figures can still be read
            return all(done)

    def _places(self) -> tuple[list[tuple[Place, ModelOptions]], list[EdgewrightError]]:
        """Every bundle that its model's policy serves, and folders that cannot be read."""
        chosen: list[tuple[Place, ModelOptions]] = []
        problems: list[EdgewrightError] = []
        seen: dict[str, Path] = {}
        for folder in self._folders:
            try:
                places, options = find_places(folder), read_options(folder, self._options)
            except EdgewrightError as problem:
                problems.append(problem)
                self._log("unreadable", folder=folder, reason=problem.message)
                continue
            for model in dict.fromkeys(place.model for place in places):
                if seen.setdefault(model, folder) != folder:
                    problems.append(EdgewrightError("E105", f"model `{model}` is in `{seen[model]}` and in `{folder}`"))
                    continue
                own = options.get(model, self._options)
                numbers = tuple({place.version for place in places if place.model == model})
                served = chosen_versions(own.versions, numbers)
                chosen += [(place, own) for place in places if place.model == model and place.version in served]
        return chosen, problems

    def _bring(self, key: Key, place: Place, options: ModelOptions) -> EdgewrightError | None:
        """Load a bundle if its files are not those that were seen last; the problem where that fails."""
        try:
            now = stamp(place.path)
        except OSError as problem:
            return EdgewrightError("E104", f"bundle `{place.path}` cannot be read: {problem.strerror or problem}")
        if key in self._known and self._known[key].stamp == now:
            return None
        begun = time.monotonic()
        try:
            version = self._open(place, options)
        except EdgewrightError as problem:
            kept = "; what was loaded before goes on" if key in self._versions else ""
            self._known[key] = _Known(now, problem.message)
            self._log("refused", model=key[0], version=key[1], reason=problem.message + kept)
            return problem
        self._known[key] = _Known(now)
        old = self._versions.get(key)
        self._versions[key] = version
        self._publish()
        took = time.monotonic() - begun
        self._log("loaded", model=key[0], version=key[1], runtime=version.bundle.runtime, seconds=took)
        if version.why_alone:
            self._log("unbatched", model=key[0], version=key[1], reason=version.why_alone)
        self._retire(old, "replaced")
        return None

    def _open(self, place: Place, options: ModelOptions) -> Version:
        """The bundle, running. With private copies nobody can change its files under a runtime that maps them."""
        copy: Path | None = None
        try:
            if self._copies:
                copy = self._copies.new()
                shutil.copytree(place.path, copy / "bundle", ignore=_all_but_files(place.path))
            path = copy / "bundle" if copy else place.path
            opened = open_place(path, place.name, options, allow_hooks=self._allow_hooks, log=self._log)
            if unmet := opened.bundle.unmet_features:
                self._log("foreign", model=place.name, reason=f"made for a CPU with {', '.join(unmet)}")
            version = Version(place.name, place.version, opened, options, copy)
            version.start()
        except (OSError, shutil.Error) as problem:
            _remove(copy)
            raise EdgewrightError("E104", f"bundle `{place.path}` cannot be copied: {problem}") from None
        except BaseException:
            _remove(copy)
            raise
        return version

    def _publish(self) -> None:
        """Let lookups see the present versions: `NAME@VARIANT` and, for each NAME, the preferred variant."""
        problems = {key: known.problem for key, known in self._known.items()}
        served = [Entry(*key, "READY", problems.get(key, "")) for key in self._versions]
        others = [Entry(*key, "UNAVAILABLE", problem) for key, problem in problems.items() if key not in self._versions]
        self._index = tuple(sorted([*served, *others], key=lambda entry: (entry.name, entry.version)))
        table: dict[tuple[str, int | None], Version] = {}
        for (name, number), version in sorted(self._versions.items(), key=lambda item: self._preference(item[1])):
            for alias in dict.fromkeys((name, name.partition("@")[0])):
                table.setdefault((alias, number), version)
        for name in {name for name, _ in table}:
            table[name, None] = table[name, max(number for known, number in table if known == name and number)]
        self._table = table

    @staticmethod
    def _preference(version: Version) -> tuple[int, str]:
        prefer = version.options.prefer
        place = prefer.index(version.bundle.runtime) if version.bundle.runtime in prefer else len(prefer)
        return place, version.name

    def _retire(self, version: Version | None, why: str) -> None:
        """End a version that requests no longer reach, on a thread of its own: it may have much to finish."""
        if version is None:
            return

        def end() -> None:
            done = _stop(version, _RETIRING_S)
            self._log(why, model=version.name, version=version.number, finished=done)

        self._retiring = [thread for thread in self._retiring if thread.is_alive()]
        thread = threading.Thread(target=end, name=f"retire {version.name}", daemon=True)
        thread.start()
        self._retiring.append(thread)


def _stop(version: Version, timeout_s: float) -> bool:
    done = version.stop(timeout_s=timeout_s)
    _give_back_memory()
    return done


def _all_but_files(folder: Path) -> Callable[[str, list[str]], list[str]]:
    """For `copytree`: leave out evidence, links, and whatever is no plain file or folder."""

    def ignore(where: str, names: list[str]) -> list[str]:
        paths = {name: Path(where) / name for name in names}
        return [
            name
            for name, path in paths.items()
            if path.is_symlink() or not (path.is_file() or path.is_dir()) or path == folder / EVIDENCE
        ]

    return ignore


def _remove(copy: Path | None) -> None:
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)


def _give_back_memory() -> None:
    """glibc keeps what was freed for later; a server that reloads for weeks would never shrink."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)
