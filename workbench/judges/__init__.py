"""Judges: which of the four outcomes an answer is."""
