"""Time and memory of the main jobs, as ratios measured side by side."""
