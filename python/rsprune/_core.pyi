"""The compiled core. Its users are the modules of rsprune; everybody else calls those."""

__all__ = ["VERSION", "cpu_features"]

VERSION: str

def cpu_features() -> dict[str, bool]: ...
