"""What happens to the decision when the model is changed while it runs: patching, directions, and the logit lens."""
