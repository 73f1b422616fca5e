"""Many models of one structure, trained at once."""
