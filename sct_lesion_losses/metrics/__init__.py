"""Scores of a mask against another, voxel by voxel and lesion by lesion."""
