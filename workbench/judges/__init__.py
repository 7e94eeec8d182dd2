"""Judges: which of the five outcomes an answer is."""
