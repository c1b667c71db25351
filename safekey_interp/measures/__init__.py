"""Measures of attention and hidden states.

What do attention and hidden states show? Attention masses with their baselines, probes, AUROC, folds, label
permutations, confidence intervals.
"""
