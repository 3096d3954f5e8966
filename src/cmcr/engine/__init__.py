"""What the paper's mathematics runs on: kernels, precision, batches, devices, and the map over shards."""
