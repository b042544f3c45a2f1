"""TV-L1 optical flow: `engines` computes it, `__main__` is the stage, `tool` the command `ccs flow` for any videos."""
