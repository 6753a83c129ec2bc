"""Faults on a local cluster of real processes, clients at work, and a verdict."""

import lattice_core.rpc  # noqa: F401 - before anything imports gRPC
