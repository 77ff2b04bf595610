"""The commands of `mgec`, one per file.

A command is a module with a docstring (its help), `add_arguments(parser)` and `run(arguments)`,
which returns the exit status. Nothing heavy is imported before `run`: `mgec run` and `mgec bench`
must start fast, and on machines without the compiler.
"""
