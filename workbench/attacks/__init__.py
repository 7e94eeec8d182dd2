"""Attacks: rewrites of a query or a picture meant to make a model answer, or refuse, what it should not."""
