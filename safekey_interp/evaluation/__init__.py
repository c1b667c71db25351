"""Evaluation of responses: judges, their metrics, and the harnesses of public benchmarks.

Does a response refuse, is it safe, and how does a model do on benchmarks of other groups?
"""
