"""Read, understand and combine adapter files: numpy and safetensors only."""

__all__: list[str] = []
