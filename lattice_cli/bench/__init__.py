"""What ``lattice bench`` does: callers at work, what they saw, and the processes they run in.

``plan`` says what is asked for, ``load`` does it, ``tally`` counts what came back into a ``histogram``, ``run`` puts
several processes of it together. Nothing here prints: lattice_cli/render/bench.py does.
"""
