"""Frozen encoders behind one small protocol, and a registry of their names."""
