"""Training: shards in, checkpoint.pt and history.csv out. `__main__` is the stage, `training` one training."""
