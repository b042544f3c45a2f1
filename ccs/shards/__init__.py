"""Training shards: frames and flow in one file. `__main__` writes them (rule `shards`), `reader` reads them."""
