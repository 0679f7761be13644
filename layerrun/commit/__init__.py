"""Pushing a layer down into the host: planned as a whole, journalled, applied, and taken back.

`plan` works out what is to be done and what speaks against it, and writes nothing. `engine` does it, finishes or
takes back what was cut short, undoes and redoes. Neither knows of the command line.
"""
