"""Validation of judges, finders, controls and intervals."""
