"""The reference pipelines: what the examples run, and what a pipeline of one's own can be written after."""
