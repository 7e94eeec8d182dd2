"""Attacks: ways to rewrite a query or a picture so that a model answers, or refuses, what it should not."""
