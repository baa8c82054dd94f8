"""Reads a Keras model file as an Architecture, without Keras."""
