"""Training recipes, and the scripts that make the shipped weights of the organism and of the refusal judge."""
