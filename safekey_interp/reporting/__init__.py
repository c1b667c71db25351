"""Findings, figures and pages of runs.

Findings are sentences, figures are plotly figures, pages are HTML files.
"""
