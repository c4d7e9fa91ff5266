"""The serving core: bundles opened, queued for, batched and reloaded, whatever the transport.

server = Server([Path("bundles/")], ServeOptions(max_batch=8))
server.start()
answer = server.infer("net", {"x": array})      # or `submit`, which calls back
server.drain(30)
"""
