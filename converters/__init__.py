"""Hold the converters, one module per operator family; importing a module registers it."""

if __name__ != "fxtrt.converters":
    raise ImportError("this package is fxtrt.converters: import it by that name")
