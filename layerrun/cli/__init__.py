"""The command line: one module a noun, each parses, calls the library once and prints.

This is the only room that imports click. The modules with the commands are imported when their
command is called, and they import the library within the functions that need it, so that no command
pays for another.
"""
