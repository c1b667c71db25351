"""Which end-to-end experiments can I run?

Probe, intervene, compare and benchmark: from files of traces or prompts to a run folder.
"""
