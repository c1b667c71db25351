"""Scripts that draw or print one figure or table each; run from a checkout, never part of the wheel."""
