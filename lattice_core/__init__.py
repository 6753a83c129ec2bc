"""Lattice: a strongly consistent, replicated key-value store on a Raft of its own."""

__version__ = "0.1.0"
