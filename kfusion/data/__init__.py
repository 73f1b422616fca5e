"""Rows that models are given: read, checked, described, taken in parts."""
