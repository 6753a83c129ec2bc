"""The deterministic simulator: the real core, log and state machine in a world where everything can fail.

::

    plan = Plan.from_seed(7, hours=0.5)        # faults and workload, explicit; save, edit, shrink, replay
    report = run(plan)                         # virtual time, simulated network and disks
    report.violations                          # empty, or what was seen, when, and by which check

See world.py for the theory, plan.py for what a plan says, plants.py for the bugs it is measured by.
"""
