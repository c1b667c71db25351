"""Patterns and word tables of the rule-based finder."""
