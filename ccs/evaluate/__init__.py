"""Evaluation: a checkpoint and shards in, scores.h5 out. `__main__` is the stage, `scoring` its work."""
