"""Sections of a benchmark that end in different ways."""
