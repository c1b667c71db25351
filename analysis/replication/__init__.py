"""Replication over seeds, bases and wrappers: training, answers, mechanism, tables."""
