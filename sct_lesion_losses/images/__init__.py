"""Files of scans: NIfTI images, BIDS folders, cohorts."""
