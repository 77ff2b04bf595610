"""From a graph in the `mge` dialect to machine code: phases, passes, kernels, code generation."""

if __name__ != "mgec.compiler":
    raise ImportError(
        f"this folder is the package 'mgec.compiler', but imported as {__name__!r}, which would "
        "make a second copy of every class: install the project, then import 'mgec.compiler'"
    )
