"""Optical flow: `engines` computes TV-L1, `__main__` is the stage, `tool` the command `ccs flow` for any videos."""
