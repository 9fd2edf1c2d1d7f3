"""The queue, its worker, and a job as a process of its own."""
