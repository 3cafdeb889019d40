"""Finding the cord: scores per voxel by a trained detector, and the best path through them."""
