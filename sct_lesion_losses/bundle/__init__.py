"""A trained model as a folder: what it is, its network, its operating point, its integrity."""
