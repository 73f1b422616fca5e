"""What predictions on known rows prove: scores with intervals, comparisons, curves."""
