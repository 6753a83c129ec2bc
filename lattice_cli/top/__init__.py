"""``lattice top``: what the cluster's status is, asked again and again, comes to (rates, changes, a screen)."""
