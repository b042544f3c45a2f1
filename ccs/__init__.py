"""From raw videos to the results of a two-stream action recognition network.

One module per rule of the workflow, named as the rule; each also runs alone: ``ccs <stage> --help``.
Nothing is imported here, so that a stage loads (and depends on) only what it uses.
"""

__version__ = "0.1.0"
