"""What do attention and hidden states show?

Attention masses beside their baselines, probes, AUROC, folds, label permutations, confidence intervals.
"""
