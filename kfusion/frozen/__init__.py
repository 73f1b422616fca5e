"""Parts of a model that do not move: marked, found, and computed once."""
