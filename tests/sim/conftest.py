"""Tests of the simulator itself: that it is deterministic, that it catches what it should, that it is quiet."""
