"""Raft as a pure function of its inputs: see node.py for the core, ready.py for the contract with drivers."""
