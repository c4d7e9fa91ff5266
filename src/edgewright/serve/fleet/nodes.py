"""Nodes and groups of nodes: from the command line, or from a node file of dl_inference."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError

_LARGEST_BYTES = 2**22
_LONGEST_MS = 3_600_000
_MOST_SHOWN = 20
#: RFC 1123: labels of letters, digits and hyphens.
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?"
)
#: What a model's name may be in a path and in the names of clusters.
_TASK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")


@dataclass(frozen=True, order=True)
class Node:
    """One server: a host name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """True where no name has to be looked up."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Pool:
    """Nodes that answer the same requests.

    Attributes:
        name: Of the model that they serve; "" for all.
        nodes: At least one.
        timeout_s: Seconds that a request may take, retries included.
        grpc: Whether they speak gRPC at these ports, else HTTP.
    """

    name: str
    nodes: tuple[Node, ...]
    timeout_s: float = 10.0
    grpc: bool = False


def is_host(text: str) -> bool:
    """Whether this is a host name or an address."""
    if re.fullmatch(r"[0-9.]+|.*:.*", text):
        return Node(text, 1).is_address
    return _HOST.fullmatch(text) is not None


def parse_node(text: str) -> Node:
    """`host:port` or `[v6]:port`.

    Raises:
        ValueError: With what is wrong.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise ValueError(f"{text.strip()[:80]!r} is no host:port")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Node(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{host[:80]!r} is no IPv6 address") from None
    if ":" in host or not is_host(host):
        raise ValueError(f"{host[:80]!r} is no host name and no address")
    return Node(host, int(port))


def parse_nodes(text: str, where: str) -> tuple[Node, ...]:
    """`host:port,host:port,...`, each once.

    Raises:
        EdgewrightError: E103.
    """
    try:
        return _nodes(text.split(","))
    except ValueError as problem:
        raise EdgewrightError("E103", f"`{where}`: {problem}") from None


def read_nodefile(path: str | Path) -> list[Pool]:
    """The pools of a node file: a line `taskid=timeoutMs,ip:port,...` for each; blank lines and those with # are left out.

    Source: the node file of dl_inference's gateway, as described by its README.

    Raises:
        EdgewrightError: E104 where it cannot be read, E201 with the number and text of every line that is none.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
    except OSError as problem:
        raise EdgewrightError("E104", f"node file `{path}` cannot be read: {problem.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise EdgewrightError("E201", f"node file `{path}` is larger than {_LARGEST_BYTES} bytes")
    pools: dict[str, Pool] = {}
    problems = []
    for number, line in enumerate(content.decode("utf-8", "replace").removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            pool = _pool(line)
            if pool.name in pools:
                raise ValueError(f"task `{pool.name}` has a line already")
            pools[pool.name] = pool
        except ValueError as problem:
            problems.append(f"line {number}, {line.strip()[:80]!r}: {problem}")
    if problems:
        more = [f"and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
        raise EdgewrightError(
            "E201",
            f"node file `{path}` has {len(problems)} lines that are not `taskid=timeoutMs,ip:port,...`",
            details=(*problems[:_MOST_SHOWN], *more),
        )
    if not pools:
        raise EdgewrightError("E201", f"node file `{path}` names no task")
    return list(pools.values())


def _pool(line: str) -> Pool:
    task, equals, rest = line.strip().partition("=")
    if not equals:
        raise ValueError("it has no `=`")
    if not _TASK.fullmatch(task.strip()):
        raise ValueError(f"{task.strip()!r} is no task id: letters, digits and _.@- only")
    timeout, *nodes = rest.split(",")
    timeout = timeout.strip()
    if not (timeout.isascii() and timeout.isdecimal() and len(timeout) < 9 and 1 <= int(timeout) <= _LONGEST_MS):
        raise ValueError(f"timeout {timeout[:40]!r} is not within 1 to {_LONGEST_MS} ms")
    if not nodes:
        raise ValueError("it names no node")
    return Pool(task.strip(), _nodes(nodes), int(timeout) / 1000)


def _nodes(texts: Sequence[str]) -> tuple[Node, ...]:
    nodes = [parse_node(text) for text in texts]
    twice = sorted({str(node) for node in nodes if nodes.count(node) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is there twice")
    return tuple(nodes)
