"""Fused kernels by family. In each, `reference.py` holds the formula in plain array code, the oracle of its faster twins."""
