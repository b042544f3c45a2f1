"""Scores of many runs in, the paper's tables out; `__main__` is the stage, `measurements` what a table is made from."""
