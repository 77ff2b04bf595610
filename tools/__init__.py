"""The `mgec` and `mgec-opt` commands."""

if __name__ != "mgec.tools":
    raise ImportError(
        f"this folder is the package 'mgec.tools', but imported as {__name__!r}, which would "
        "make a second copy of every class: install the project, then import 'mgec.tools'"
    )
