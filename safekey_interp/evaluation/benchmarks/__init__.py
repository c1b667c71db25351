"""Benchmarks of other groups, run by lm-evaluation-harness and inspect_evals.

Nothing is asked or scored here: each benchmark of each model is one call of its harness, in a process of its own, whose
JSON is kept as it was written and read back into one table.
"""
