"""Sentences about the tables of a run, each with its n, its interval and its control."""
