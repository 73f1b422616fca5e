"""Compiling and fitting one model."""
