"""Where people already are: the model hub, sentence-transformers, ONNX, MTEB; each adapter is one file over one library."""
