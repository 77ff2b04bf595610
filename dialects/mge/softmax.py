"""(to be written)"""

OPS = ()
