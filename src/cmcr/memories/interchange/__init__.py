"""Memories from and to the files of others: numpy arrays, the folders of clip-retrieval, Parquet."""
