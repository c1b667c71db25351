"""Generation of responses, and the likelihood of given continuations.

What does the model answer, and how likely is a given continuation? Engines that answer requests, files of responses,
prefills, KL divergence, and the log-probability of key sentences.
"""
