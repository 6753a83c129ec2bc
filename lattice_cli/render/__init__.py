"""How output looks: the only place that knows rich. Commands hand over data, and say nothing of colours."""
