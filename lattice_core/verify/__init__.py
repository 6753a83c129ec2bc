"""Histories of what clients saw, and the checker that says whether a register could have done it."""

from lattice_core.verify.counterexample import Counterexample
from lattice_core.verify.history import HistoryRecorder, Operation, iter_history, read_history, write_history
from lattice_core.verify.linearizability import Budget, Verdict, check_history
from lattice_core.verify.timeline import render_timeline, write_timeline

__all__ = [
    "Budget",
    "Counterexample",
    "HistoryRecorder",
    "Operation",
    "Verdict",
    "check_history",
    "iter_history",
    "read_history",
    "render_timeline",
    "write_history",
    "write_timeline",
]
