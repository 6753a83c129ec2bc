"""What ``lattice doctor`` looks at: gathered in one place, judged in another, which does no I/O."""
