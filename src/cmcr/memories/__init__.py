"""Stored embeddings: the memories from which a connection is learned."""
