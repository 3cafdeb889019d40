"""Grids, resampling, the tube around the cord, and patches: each step with its inverse."""
