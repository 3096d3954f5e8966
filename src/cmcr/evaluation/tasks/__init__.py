"""The paper's zero-shot tasks. Each embeds its items once, in their own spaces, and scores any way to compare them.

records (evaluation/datasets) -> a task's `prepare` (encoders, once) -> `score` (once for every way) -> figures
"""
