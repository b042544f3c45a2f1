"""The network: backbones, connection block, aggregation, shared block. Knows nothing of files, data or training."""
