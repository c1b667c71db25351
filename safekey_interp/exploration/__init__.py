"""What would the model have done?

A session in which a model writes, is read token by token, and goes on from any token with something changed.
"""
