"""Measuring: the fastest kernel of several, kept in a database; ceilings of this machine."""
