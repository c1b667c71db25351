"""Questions of the literature on the outcome of a model's own answers, on the toy model and on the trained SmolLM2."""
