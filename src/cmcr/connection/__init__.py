"""The paper: enhancement, projectors, losses, training, and the connection that comes out of it."""
