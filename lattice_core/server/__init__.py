"""The node: the Ready loop, its services, bootstrap and join."""

import lattice_core.rpc  # noqa: F401 - before anything imports gRPC
