"""SmolLM2-135M on real traces: data, training, interventions."""
