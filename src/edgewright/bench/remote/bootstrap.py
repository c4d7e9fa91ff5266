"""What runs first on the other machine: Python alone, sent as text. It receives the rest, hands over, and cleans up.

Standard input carries messages: a JSON line, and where that has a `size`, so many bytes after it. Replies are JSON lines
on what was standard output; what libraries print goes to standard error. Nothing of edgewright is imported before it has
arrived.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import zipfile
from typing import IO, Any

#: Written in pieces, so that a large file needs no memory.
PIECE_BYTES = 2**20


class Channel:
    """The two directions to the machine that asks, and the folder that everything goes into."""

    def __init__(self, source: IO[bytes], replies: IO[bytes], folder: pathlib.Path) -> None:
        self.source, self.replies, self.folder = source, replies, folder

    def reply(self, **event: Any) -> None:
        """Send one line."""
        self.replies.write(json.dumps(event).encode() + b"\n")
        self.replies.flush()

    def receive(self) -> dict[str, Any]:
        """The next message that is no file; files are written on the way, code is unpacked."""
        while True:
            message: dict[str, Any] = json.loads(self.source.readline() or b"{}")
            if "file" in message:
                self._write(self.folder / message["file"], message["size"])
            elif "code" in message:
                self._unpack(self.source.read(message["size"]))
            elif message:
                return message
            else:
                raise EOFError("the connection ended")

    def _write(self, path: pathlib.Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            while size:
                piece = self.source.read(min(size, PIECE_BYTES))
                if not piece:
                    raise EOFError("the connection ended")
                stream.write(piece)
                size -= len(piece)

    def _unpack(self, content: bytes) -> None:
        """Put the modules on the path of this process and of those that it starts, compiled as an installation's are."""
        library = str(self.folder / "lib")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(library)
        compileall.compile_dir(library, quiet=2)
        sys.path.insert(0, library)
        inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        os.environ["PYTHONPATH"] = os.pathsep.join([library, *inherited])

    def end_with_connection(self) -> None:
        """From now on nothing more is read; when the other side goes, this process ends, and cleans up."""

        def watch() -> None:
            os.read(self.source.fileno(), 1)  # a buffered read would hold a lock when the interpreter ends
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()


def serve(channel: Channel) -> None:
    """Receive the code, hand over to it, and tell what went wrong."""
    try:
        channel.reply(folder=str(channel.folder))
        request = channel.receive()
        if importlib.util.find_spec("numpy") is None:
            channel.reply(board={"missing": ["numpy"]})
            return
        from edgewright.bench.remote import agent

        agent.run(channel, request["check"])
    except OSError as problem:
        channel.reply(system=f"{problem.strerror or problem}", number=problem.errno)
    except Exception:
        channel.reply(crash=traceback.format_exc())


def main() -> None:
    """Serve one connection in a fresh folder, and remove it however that ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:] = [entry for entry in sys.path if entry]  # what lies in the login's folder is not imported
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="edgewright-bench-"))
    try:
        with contextlib.suppress(SystemExit):  # the end is told by the code 0: everything is removed
            serve(Channel(sys.stdin.buffer, replies, folder))
    finally:
        for name in ("SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
