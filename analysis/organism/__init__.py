"""Tables of the bundled toy models."""
