"""The fast plane: HTTP/2 through libnghttp2 on the event loop, behind the same seam as grpcio.

Bytes of a socket -> `guard._nghttp2` -> events -> `connection` -> `callers` and `exchange` (towards callers), `link`
and `remote_calls` (towards servers). gRPC's own forms are in `heads`, `answers`, `codec` and `framing`.
"""
