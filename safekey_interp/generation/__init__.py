"""What does the model answer, and how likely is a given continuation?

Engines that answer requests, responses' files, prefills, KL divergence, and the log-probability of key sentences.
"""
