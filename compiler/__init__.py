"""From a graph in the `mge` dialect to machine code: phases, passes, kernels, code generation."""

if __name__ != "mgec.compiler":
    raise ImportError(
        f"this folder is the package 'mgec.compiler', but it was imported as {__name__!r}, which would make "
        "a second copy of every class: install the project (pip install -e .), import 'mgec.compiler'"
    )
