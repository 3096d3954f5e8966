"""Files to arrays: what encoders read, decoded, and the miniature world of numbers."""
