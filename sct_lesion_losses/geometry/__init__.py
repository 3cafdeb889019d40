"""Grids, resampling, the crop around the cord, and patches: each step with its inverse."""
