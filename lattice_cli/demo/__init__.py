"""``lattice demo``: a real cluster on this machine, and what it goes through.

processes.py  a local cluster of real ``lattice start`` processes, also for benchmarks
workload.py   writers that know what was acknowledged, and whether the store still says so
story.py      the acts of the demonstration, in order, each checked
"""
