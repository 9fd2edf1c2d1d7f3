"""The command line and the web page: thin, over one library."""

__all__: list[str] = []
