"""The compiled core. Its users are the modules of rsprune; everybody else calls those."""

__all__: list[str]

VERSION: str

def cpu_features() -> dict[str, bool]: ...
