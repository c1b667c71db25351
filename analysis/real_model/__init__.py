"""SmolLM2-135M-Instruct trained to reason, with SafeKey's losses and without them: a study designed before its runs."""
