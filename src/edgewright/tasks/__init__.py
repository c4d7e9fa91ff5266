"""Tasks: what the outputs of one network mean."""
