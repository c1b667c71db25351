"""What does a model answer? Here, at an endpoint or with vLLM; and what does it answer when its first words are given?

- :mod:`~safekey_interp.generation.local`, :mod:`~safekey_interp.generation.remote` and
  :mod:`~safekey_interp.generation.vllm_engine` answer requests; :func:`generate` is the short way for a local model.
- :mod:`~safekey_interp.generation.prefilled` and :mod:`~safekey_interp.generation.prefill_depth` make the requests of
  experiments on the first words of a response; :mod:`~safekey_interp.generation.resampling` draws K from the model.
- :mod:`~safekey_interp.generation.running` writes responses to a file that grows, resumes and never asks twice.
- :mod:`~safekey_interp.generation.kl` compares two models on the same tokens.
"""

from safekey_interp.generation.local import LocalEngine, generate
from safekey_interp.generation.requests import Engine, Generated, Request, responses_table
from safekey_interp.generation.sampling import Sampling

__all__ = ["Engine", "Generated", "LocalEngine", "Request", "Sampling", "generate", "responses_table"]
