"""Beyond one machine: configuration for engines that exist. Nothing here listens, connects, or runs beside a server.

`nodes` reads node lists (and node files of dl_inference); `envoy`, `haproxy` and `kubernetes` write what these engines read.
"""
