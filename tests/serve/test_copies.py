"""Private copies of bundles: they never outlive their process for long."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright.serve.core.copies import Copies

_KEEP = """
import time
from edgewright.serve.core.copies import Copies
copies = Copies()
print(copies.new(), flush=True)
time.sleep(60)
"""


def test_copies_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", _KEEP], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    try:
        dead, living = [Path(process.stdout.readline().strip()) for process in started if process.stdout]
        assert dead.is_dir() and living.is_dir() and dead.parent != living.parent
        started[0].kill()
        started[0].wait()
        (tmp_path / "edgewright-serve-link").symlink_to(living)  # whatever else has such a name is left alone
        own = Copies()
        assert own.new().is_dir()
        assert not dead.parent.exists() and living.is_dir() and (tmp_path / "edgewright-serve-link").is_symlink()
        own.close()
        assert [path for path in tmp_path.glob("edgewright-serve-*") if not path.is_symlink()] == [living.parent]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_a_server_that_reloads_leaves_no_copy(
    repository: Callable[..., Path], serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    server = serve(repository({"net": "scale"}), reloads=True)
    (folder,) = (tmp_path / "copies").iterdir()
    server.repository.unload("net")
    server.repository.load("net")
    server.drain(10)
    assert not folder.exists() and not list((tmp_path / "copies").iterdir())
