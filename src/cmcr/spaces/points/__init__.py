"""What the encoders of point clouds share: groups of points, their tokens, strict weights, the space around them."""
