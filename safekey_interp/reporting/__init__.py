"""How do tables become sentences, figures and a page?

Findings are sentences, figures are plotly figures, pages are HTML files.
"""
