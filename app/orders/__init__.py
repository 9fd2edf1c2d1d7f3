"""What a job can be asked for."""
