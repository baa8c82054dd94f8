"""Compiled training steps on TensorFlow and JAX."""
