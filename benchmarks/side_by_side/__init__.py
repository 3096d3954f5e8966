"""The parts of `benchmarks/speed.py`: each measures ours and the other ways in turn, in one process."""
