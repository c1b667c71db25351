"""Did the model refuse, how safe is it, and how does it do on public benchmarks?

Judges of responses, their metrics, and the harnesses of public benchmarks.
"""
