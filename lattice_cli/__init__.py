"""The command line. ``main.py`` lists the commands, ``commands/`` holds one thin module per noun, ``render/`` is
the only place that knows how output looks. What it may rely on and what scripts rely on is CLI.md's contract.
"""
