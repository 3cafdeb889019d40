"""Scans through models: p-maps and counts."""
