"""Metrics as pure functions, and the baselines that stand beside every figure."""
