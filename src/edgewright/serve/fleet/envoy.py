"""Configuration for Envoy: clusters with health checks, outlier ejection, least-request and a retry budget, and the routes.

Source: envoyproxy.io, "API (v3)": config.bootstrap.v3.Bootstrap, config.cluster.v3.Cluster, config.route.v3.RouteConfiguration.
The document is JSON, which Envoy reads as it is: `envoy -c envoy.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.serve.fleet.nodes import Node, Pool
from edgewright.serve.fleet.upstream import PLAIN, Upstream

_TYPES = "type.googleapis.com/envoy.extensions"
#: Requests to models come with their name in the path over HTTP; gRPC has it in the message, so that clients add a header.
MODEL_HEADER = "x-edgewright-model"
#: A body is kept until it is answered, so that another node can have it; the server's own limit by default.
_BODY_BYTES = 64 * 2**20
_MOST_REQUESTS = 4096
#: When a node is left out without a health check.
_OUTLIERS = {
    # Ejected for connections that fail or time out, and for gateway errors. Not for 500: a model that fails on
    # some input fails on every node.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 2,
    "enforcing_consecutive_local_origin_failure": 100,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "60s",
    "max_ejection_percent": 50,
}


def envoy(pools: Sequence[Pool], listen: Node, admin: Node | None = None, upstream: Upstream = PLAIN) -> dict[str, Any]:
    """A bootstrap document.

    Args:
        pools: What is served where. Requests for a pool's model go there; a pool without a name gets all others.
        listen: Where clients come, HTTP and gRPC (without TLS) at one port.
        admin: Where Envoy shows its own state; None for nowhere.
        upstream: How Envoy speaks to the nodes.

    Raises:
        EdgewrightError: E103 where it should listen at a name instead of an address.
    """
    for node in (listen, admin):
        if node is not None and not node.is_address:
            raise EdgewrightError("E103", f"Envoy listens at addresses, which `{node}` is none: 0.0.0.0:{node.port}?")
    document: dict[str, Any] = {
        "static_resources": {
            "listeners": [_listener(pools, listen, upstream)],
            "clusters": [_cluster(pool, upstream) for pool in pools],
        },
    }
    if admin is not None:
        document["admin"] = {"address": _address(admin)}
    return document


def _address(node: Node) -> dict[str, Any]:
    return {"socket_address": {"address": node.host, "port_value": node.port}}


def _seconds(value: float) -> str:
    return f"{value:.3f}s"


def _name(pool: Pool) -> str:
    return f"{'grpc' if pool.grpc else 'http'}-{pool.name or 'all'}"


def _cluster(pool: Pool, upstream: Upstream) -> dict[str, Any]:
    version: dict[str, Any] = {"http2_protocol_options": {}} if pool.grpc else {"http_protocol_options": {}}
    # the standard health service over gRPC; over HTTP the server's own: not ready while it starts or drains
    check: dict[str, Any] = (
        {"grpc_health_check": {}} if pool.grpc else {"http_health_check": {"path": "/v2/health/ready"}}
    )
    endpoints = [{"endpoint": {"address": _address(node)}} for node in pool.nodes]
    return {
        "name": _name(pool),
        "type": "STATIC" if all(node.is_address for node in pool.nodes) else "STRICT_DNS",
        # else a name that has both is looked for at its IPv6 address alone
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "0.500s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": _name(pool), "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": version,
            }
        },
        "health_checks": [
            {
                "timeout": "0.500s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                **check,
            }
        ],
        "outlier_detection": _OUTLIERS,
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _MOST_REQUESTS,
                    "max_pending_requests": _MOST_REQUESTS,
                    "max_requests": _MOST_REQUESTS,
                    # retries may not double the load of a fleet that is overloaded
                    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 16},
                }
            ]
        },
        "per_connection_buffer_limit_bytes": 2**20,
        **_tls(pool, upstream),
    }


def _tls(pool: Pool, upstream: Upstream) -> dict[str, Any]:
    """TLS to the nodes of a pool; a certificate has to be signed by the CA, and made for one of them."""
    if upstream.ca is None:
        return {}
    names = [upstream.tls_name] if upstream.tls_name else sorted({node.host for node in pool.nodes})
    accepted = [
        {"san_type": "IP_ADDRESS" if Node(name, 1).is_address else "DNS", "matcher": {"exact": name}} for name in names
    ]
    trusted = {"trusted_ca": {"filename": str(upstream.ca)}, "match_typed_subject_alt_names": accepted}
    context: dict[str, Any] = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            # by itself Envoy goes no further than 1.2 here, and `edgewright serve` takes 1.3 alone
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2" if pool.grpc else "http/1.1"],
            "validation_context": trusted,
        },
    }
    if len(names) == 1 and accepted[0]["san_type"] == "DNS":
        context["sni"] = names[0]
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}


def _added(upstream: Upstream) -> dict[str, Any]:
    if upstream.token is None:
        return {}
    header = {"key": "authorization", "value": f"Bearer {upstream.token}"}
    return {"request_headers_to_add": [{"header": header, "append_action": "ADD_IF_ABSENT"}]}


def _listener(pools: Sequence[Pool], listen: Node, upstream: Upstream) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edgewright",
        "codec_type": "AUTO",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "60s",
        "common_http_protocol_options": {"idle_timeout": "300s", "headers_with_underscores_action": "REJECT_REQUEST"},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": True,
        "route_config": {
            "name": "models",
            "virtual_hosts": [
                {
                    "name": "models",
                    "domains": ["*"],
                    "routes": _routes(pools),
                    "request_body_buffer_limit": _BODY_BYTES,
                    **_added(upstream),
                }
            ],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": "clients",
        "address": _address(listen),
        "per_connection_buffer_limit_bytes": 2**20,
        "filter_chains": [chain],
    }


def _routes(pools: Sequence[Pool]) -> list[dict[str, Any]]:
    """Routes of single models before those of all; gRPC before HTTP, whose paths would match as well."""
    routes = []
    for pool in sorted(pools, key=lambda pool: (not pool.name, not pool.grpc)):
        if pool.grpc:
            header = {"name": MODEL_HEADER, "string_match": {"exact": pool.name}}
            headers = [header] if pool.name else []
            routes.append(_route({"prefix": "/inference.GRPCInferenceService/", "headers": headers}, pool))
        elif pool.name:
            routes += [_route({"path_separated_prefix": f"/v2/models/{pool.name}"}, pool)]
        else:
            routes.append(_route({"prefix": "/v2"}, pool))
    fixed = [
        # one node's models are not everybody's: what changes a server is asked of that server
        {"match": {"prefix": "/v2/repository/"}, "direct_response": {"status": 403}},
    ]
    if not any(pool.name == "" and not pool.grpc for pool in pools):
        # no node stands for all: the proxy itself says that it is there
        fixed.append({"match": {"path": "/v2/health/live"}, "direct_response": {"status": 200}})
    return [*fixed, *routes]


def _route(match: dict[str, Any], pool: Pool) -> dict[str, Any]:
    policy = {
        # a run changes nothing, so that it may be asked of another node whatever became of the first
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes"
        + (",unavailable" if pool.grpc else ""),
        "retriable_status_codes": [503],
        "num_retries": 2,
        "per_try_timeout": _seconds(pool.timeout_s / 2),
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.050s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    return {
        "match": match,
        "route": {"cluster": _name(pool), "timeout": _seconds(pool.timeout_s), "retry_policy": policy},
    }
