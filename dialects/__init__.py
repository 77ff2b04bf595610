"""The `mge` dialect: everything that says what an op means, one op family per file."""

if __name__ != "mgec.dialects":
    raise ImportError(
        f"this folder is the package 'mgec.dialects', but imported as {__name__!r}, which would "
        "make a second copy of every class: install the project, then import 'mgec.dialects'"
    )
