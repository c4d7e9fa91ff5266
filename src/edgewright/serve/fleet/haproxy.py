"""Configuration for HAProxy: least connections, health checks, and a second node for a request whose first one failed.

Source: docs.haproxy.org, "Configuration Manual" 2.6: retry-on, observe, http-check.
"""

from __future__ import annotations

from edgewright.errors import EdgewrightError
from edgewright.serve.fleet.nodes import Node, Pool
from edgewright.serve.fleet.upstream import PLAIN, Upstream

#: A request that fits is kept until it is answered, and can go to another node; 224 x 224 x 3 floats are 600 KiB.
_BUFFER_BYTES = 2**20
#: Connections at one time. Each may take two buffers.
_CONNECTIONS = 512

_TEMPLATE = """\
# haproxy -f FILE -db
global
    maxconn {connections}
    tune.bufsize {buffer}

defaults
    mode http
    # a request that begins to leave before all of it has come cannot be asked of another node
    option http-buffer-request
    timeout connect 500ms
    timeout client 60s
    # as long as nodes wait for a body
    timeout http-request 30s
    timeout queue {half_ms}ms
    # half the time that a request may take: a node that stalls leaves the other half to another one
    timeout server {half_ms}ms
    option redispatch 1
    # the node that failed has the fewest connections for a moment, and may be chosen again
    retries 3
    # a run changes nothing, so that it may be asked of another node whatever became of the first
    retry-on conn-failure empty-response response-timeout 503

frontend clients
    bind {listen}
    # one node's models are not everybody's: what changes a server is asked of that server
    http-request deny if {{ path_beg /v2/repository/ }}
{added}    default_backend nodes

backend nodes
    balance leastconn
    option httpchk
    http-check send meth GET uri /v2/health/ready
    http-check expect status 200
    timeout check 400ms
    # connections that fail take a node out at once, a stalled one goes with its second check; what it was asked then is
    # asked of another node once its half of the time is over
    default-server check inter 500ms fastinter 200ms fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down \
init-addr last,libc,none
{servers}
"""


def haproxy(pool: Pool, listen: Node, upstream: Upstream = PLAIN) -> str:
    """The configuration file, HTTP only.

    Raises:
        EdgewrightError: E103 for TLS to nodes that are addresses: HAProxy checks names only.
    """
    assert not pool.grpc, "gRPC goes through Envoy"
    servers = "\n".join(
        f"    server node{number} {node}{_tls(node, upstream)}" for number, node in enumerate(pool.nodes, 1)
    )
    return _TEMPLATE.format(
        connections=_CONNECTIONS,
        buffer=_BUFFER_BYTES,
        half_ms=max(1, round(pool.timeout_s * 500)),
        listen=listen,
        servers=servers,
        added=_added(upstream),
    )


def _added(upstream: Upstream) -> str:
    if upstream.token is None:
        return ""
    unless = "unless { req.hdr(authorization) -m found }"
    return f'    http-request set-header Authorization "Bearer {upstream.token}" {unless}\n'


def _tls(node: Node, upstream: Upstream) -> str:
    """What makes a server's line one of TLS; its health checks speak it as well."""
    if upstream.ca is None:
        return ""
    name = upstream.tls_name or node.host
    if Node(name, 1).is_address:
        raise EdgewrightError(
            "E103",
            f"HAProxy checks names in certificates, and `{name}` is an address",
            hint="give nodes by name, or --tls-name NAME that all their certificates have",
        )
    return f' ssl verify required ca-file "{upstream.ca}" verifyhost {name} sni str({name}) check-sni {name}'
