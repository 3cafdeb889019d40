"""Scan and centerline to the input of a network."""
