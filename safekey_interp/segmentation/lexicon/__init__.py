"""Word classes and forms of words that the rule-based finder reads, as regular expressions."""
