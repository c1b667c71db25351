"""Which prompts and traces does a file hold?

Records of traces, readers of JSONL, JSON, CSV, TSV and Parquet, benchmarks' files, and conditions of traces.
"""
