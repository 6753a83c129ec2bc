"""Faults on a local cluster of real processes, with a verdict: see :mod:`lattice_cli.chaos.run`."""
