"""Verbs of the package: each reads like the flow it is."""
