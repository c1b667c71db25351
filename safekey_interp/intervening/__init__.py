"""How does an intervention become a run folder? :func:`~safekey_interp.intervening.running.run_intervention`."""
