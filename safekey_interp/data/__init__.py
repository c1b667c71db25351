"""Which prompts and traces does a file hold?

Records of traces, readers of JSONL, JSON, CSV, TSV, Parquet, Inspect logs and INIF, benchmarks' files, conditions.
"""
