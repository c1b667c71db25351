"""Which sentence is the understanding U, and which the key sentence K?

Sentence splitting, the rule-based, LLM and given finders, and the view of one segmented trace.
"""
