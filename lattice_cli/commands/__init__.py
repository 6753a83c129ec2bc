"""One thin module per noun: parse, call the client, render. Heavy imports (grpc, the server) belong inside the
functions that need them, so that ``lattice --help`` and completion stay quick; a test sees to it.
"""
