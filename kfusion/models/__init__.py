"""Models made of branches, and what can be asked of a trained one."""
