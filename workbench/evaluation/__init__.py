"""Evaluation: ask a model under attack, judge the answers, count, and compare."""
