"""The embedded demonstration: miniature spaces that never met, connected, measured and shown."""
