"""Keras multimodal fusion."""
