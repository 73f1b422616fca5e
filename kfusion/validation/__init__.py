"""Fits on several folds, beside what a fusion has to beat."""
