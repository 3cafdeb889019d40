"""Scans, masks, subjects, sites and the parts they are split into."""
