"""The paper's figures from our own scores: each a stage of its own, `python -m ccs.figures.figure1` and so on.

Each writes an SVG with its text as text, a PNG of the same drawing, and a CSV of every number drawn. `style` is what
they share in looks, `bars` the bar charts of figure 5. Nothing here imports the network but the figure that needs it.
"""

import logging

# where there is no home that it can write it makes itself a temporary folder, and two warnings of it
_HOMELESS = ("mkdir -p failed", "temporary cache directory")
logging.getLogger("matplotlib").addFilter(lambda record: not any(each in record.msg for each in _HOMELESS))
