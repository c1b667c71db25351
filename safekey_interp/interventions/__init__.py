"""Causal interventions on a model that reads traces, each beside its controls.

Attention knockout, activation patching, steering, the logit lens, direct logit attribution and sentence suppression.

Arguments that the functions share:

- ``model``: from ``load`` or ``from_hf``.
- ``metric``: what is read out: one or several of ``aha``, ``key_sentence``, ``logprob("text")``, ``logprob(EXPR)``,
  ``logit_difference("a", "b")``, ``probe(FILE)``, each with ``at EXPR`` where it is read elsewhere than before K
  (:mod:`~safekey_interp.interventions.metric_registry`), or a function ``(logits, encoding) -> number``; ``aha`` and
  ``key_sentence`` when None. ``EXPR`` is a span expression (:mod:`safekey_interp.data.span_expressions`).
- ``bank``: sentences in K's place; ``bank_for`` the model's tokenizer when None.
- ``seed``: seed of every draw.
- ``finder``: finds U and K.
- ``delimiters``: opening and closing mark of the reasoning; those of the known families when None.
- ``max_length``: most tokens up to the end of the last sentence that is read; longer traces are left out.
- ``batch_size``: sequences a forward pass, or ``auto``.
- ``backend``: ``hf`` (fast) or ``bridge`` (TransformerLens).
- ``on_trace``: is called with the number of traces that were done since the last call.

Every table has ``attrs["left_out"]``, which maps the traces that are not in it to their reasons.
"""
