"""The ``lattice`` script: Ctrl-C is quiet from its first moment to its last.

Python raises KeyboardInterrupt wherever it happens to be, which may be in the middle of an import, or when it is
tidying up; nobody catches it then, and it would end in a traceback. So outside of :func:`lattice_cli.main.run`,
which catches it, the signal ends the process by itself, as it ends any other program's. That begins with the import of
this module, which therefore imports nothing that is not built in: ``signal`` itself would take ten milliseconds.

A command that runs once, such as ``lattice get``, mostly imports and ends. Python's search for cycles of garbage would
take a fifth of its time: classes and functions are made by the ten thousand, none of them garbage. So it looks less
often from here on, and not at all on the way out.
"""

import _signal as signals  # type: ignore[import-not-found]
import gc
import sys

GC_THRESHOLDS = (50_000, 10, 10)
"""For the first, after how many new objects to look: more than a command makes by importing. A node has its own."""
gc.set_threshold(*GC_THRESHOLDS)

# Who starts it in the background of a script has it ignore the signal; that stays so.
MINE = signals.getsignal(signals.SIGINT) is signals.default_int_handler
if MINE:
    signals.signal(signals.SIGINT, signals.SIG_DFL)


def main() -> None:
    """Run the command line of this process, and exit."""
    from lattice_cli.errors import EXIT_INTERRUPTED
    from lattice_cli.main import run

    try:
        if MINE:
            signals.signal(signals.SIGINT, signals.default_int_handler)
        code = run()
    except KeyboardInterrupt:  # once more, while the first was being reported
        code = EXIT_INTERRUPTED
    finally:
        if MINE:
            signals.signal(signals.SIGINT, signals.SIG_DFL)
    gc.freeze()  # all that is left ends with the process
    sys.exit(code)
