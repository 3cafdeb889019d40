"""The figures of the study: a module each, and one for what they have in common."""
