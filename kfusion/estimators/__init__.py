"""`FusionClassifier` and `FusionRegressor`: members, blend, evidence, one model."""
