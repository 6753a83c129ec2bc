"""Lattice beside etcd and PySyncObj, on this machine, in one run: see benchmarks/README.md for how and why."""
