"""Memo: what was expensive to find out, in files of a folder, so that nobody finds it out twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.files import write_whole


class Memo:
    """JSON documents by key. One that cannot be read counts as not known; the folder is made when something is put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: object) -> dict[str, Any] | None:
        """The document that was put under `key` (JSON-ready), or None."""
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: object, document: dict[str, Any]) -> None:
        """Keep `document`.

        Raises:
            EdgewrightError: E105 when it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise EdgewrightError("E105", f"`{self.folder}` cannot be made: {problem.strerror}") from None
        write_whole(self._path(key), json.dumps(document))

    def _path(self, key: object) -> Path:
        text = json.dumps(key, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
