"""Assembles the parts into a run: the command line, the engines, and the only importer of ray."""
