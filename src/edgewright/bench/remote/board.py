"""Board: another machine by its ssh address.

>>> Board.parse("ssh://pi@board.local:2222")
Board(host='board.local', user='pi', port=2222, python='python3', ssh_options=())
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from edgewright.errors import EdgewrightError

#: A name may not begin with a dash: ssh would take it for an option.
_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
#: Never a prompt, never a wait without end. Whether a host key is known stays ssh's own decision.
_SETTINGS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_FORM = "ssh://USER@HOST or ssh://USER@HOST:PORT"


@dataclass(frozen=True)
class Board:
    """Where to measure.

    Attributes:
        host: Name, address, or a Host of the user's ssh config.
        user: Login; ssh's own choice where None.
        port: Port; ssh's own choice where None.
        python: The Python there that has the packages, such as `venv/bin/python`.
        ssh_options: Further words for ssh, before everything else.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    ssh_options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, address: str, *, python: str = "python3", ssh_options: tuple[str, ...] = ()) -> Board:
        """The machine that `ssh://[USER@]HOST[:PORT]` names.

        Raises:
            EdgewrightError: E103 for another form.
        """
        try:
            parts = urlsplit(address)
            user, port = parts.username, parts.port
        except ValueError:
            raise _no_address(address) from None
        place = parts.netloc.rpartition("@")[
            2
        ]  # `hostname` would be in lower case, and ssh config knows the difference
        host = unquote(place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0])
        more = parts.path.strip("/") or parts.query or parts.fragment or parts.password is not None
        names = (host,) if user is None else (host, user)
        if more or parts.scheme != "ssh" or not all(_NAME.fullmatch(name) for name in names):
            raise _no_address(address)
        return cls(host, user, port, python, ssh_options)

    def command(self, remote: str) -> list[str]:
        """The command line that runs `remote` there, in its login shell."""
        settings = [word for setting in _SETTINGS for word in ("-o", setting)]
        return ["ssh", *self.ssh_options, *settings, "-T", *self._where, remote]

    @property
    def login(self) -> str:
        """The command line that logs in by hand."""
        return shlex.join(["ssh", *self.ssh_options, *self._where])

    @property
    def _where(self) -> list[str]:
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, self.host]

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port else "")


def _no_address(address: str) -> EdgewrightError:
    return EdgewrightError("E103", f"`{address}` is no address of another machine, which looks like {_FORM}")
