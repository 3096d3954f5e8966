"""ULIP-2 with PointBERT: point clouds, pictures and texts in one space, from the published file."""
